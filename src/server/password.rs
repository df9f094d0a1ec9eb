//! Passwords: made, hashed, and checked away from the executors, since one check costs milliseconds.

use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock, TryLockError};
use std::thread;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select_biased};

/// The password field of a bind holds eight octets and a NUL (§4.1.1.1).
pub(super) const PASSWORD_OCTETS_MAX: usize = 8;

/// Letters and digits that cannot be taken for one another.
const UNAMBIGUOUS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Verified credentials remembered; a reconnect storm of so many accounts costs no hashing.
const CACHE_MAX: usize = 10_000;

/// A password to check.
pub(super) struct VerifyRequest {
    /// The account's argon2id hash; `None` = no such account, which takes as long to refuse.
    pub(super) hash: Option<Box<str>>,
    /// Who binds.
    pub(super) system_id: Box<[u8]>,
    /// The password as it came.
    pub(super) password: Box<[u8]>,
    /// Called on a thread of the verifier with the verdict.
    pub(super) reply: Box<dyn FnOnce(bool) + Send>,
}

/// Threads that check passwords. They end when the last clone is gone and the queues are empty.
///
/// Anybody can send names that nobody has, and each costs as much as a customer's: so strangers have a queue of
/// their own, which is served while no customer waits. Lest the time of a refusal tell who is a customer, that
/// of a customer's wrong password goes through the strangers' queue as well.
#[derive(Clone)]
pub(super) struct Verifier {
    checker: Arc<Checker>,
    customers: Sender<VerifyRequest>,
    strangers: Sender<Stranger>,
}

/// What waits in the queue of strangers.
enum Stranger {
    /// A name that nobody has.
    Unknown(VerifyRequest),
    /// A customer's name with a password found to be wrong: whom to tell.
    Refused(Box<dyn FnOnce(bool) + Send>),
}

impl Verifier {
    /// Starts `threads` threads behind queues of `queue_max` requests, for strangers and for customers.
    ///
    /// # Errors
    /// No thread could be started, or the system has no random numbers.
    pub(super) fn start(threads: usize, queue_max: usize) -> io::Result<Self> {
        let dummy = hash(&generate()?).map_err(io::Error::other)?;
        let checker = Arc::new(Checker { dummy, key: random()?, cache: RwLock::new(Cache::new(CACHE_MAX)) });
        let (customers, from_customers) = bounded(queue_max.max(1));
        let (strangers, from_strangers) = bounded(queue_max.max(1));
        for number in 0..threads.max(1) {
            let worker = Worker {
                checker: Arc::clone(&checker),
                customers: from_customers.clone(),
                strangers: (strangers.clone(), from_strangers.clone()),
            };
            thread::Builder::new().name(format!("verify-{number}")).spawn(move || worker.run())?;
        }
        Ok(Self { checker, customers, strangers })
    }

    /// Whether these credentials were right before; costs one keyed hash and waits for nobody. `false` says
    /// nothing: they have to be checked.
    pub(super) fn knows(&self, hash: Option<&str>, system_id: &[u8], password: &[u8]) -> bool {
        let Some(hash) = hash else { return false };
        let mark = self.checker.mark(hash, system_id, password);
        match self.checker.cache.try_read() {
            Ok(cache) => cache.contains(&mark),
            Err(TryLockError::Poisoned(cache)) => cache.into_inner().contains(&mark),
            Err(TryLockError::WouldBlock) => false,
        }
    }

    /// Queues a request.
    ///
    /// # Errors
    /// The request itself, when there is no room.
    pub(super) fn try_send(&self, request: VerifyRequest) -> Result<(), VerifyRequest> {
        if request.hash.is_some() {
            return self.customers.try_send(request).map_err(TrySendError::into_inner);
        }
        self.strangers.try_send(Stranger::Unknown(request)).map_err(|error| match error.into_inner() {
            Stranger::Unknown(request) => request,
            Stranger::Refused(_) => unreachable!("it is the request that was sent"),
        })
    }
}

/// One of the threads.
struct Worker {
    checker: Arc<Checker>,
    customers: Receiver<VerifyRequest>,
    strangers: (Sender<Stranger>, Receiver<Stranger>),
}

impl Worker {
    fn run(&self) {
        loop {
            select_biased! {
                recv(self.customers) -> request => match request {
                    Ok(request) => self.check_customer(request),
                    Err(_) => break,
                },
                recv(self.strangers.1) -> stranger => stranger.into_iter().for_each(|it| self.refuse(it)),
            }
        }
        self.strangers.1.try_iter().for_each(|stranger| self.refuse(stranger));
    }

    fn check_customer(&self, request: VerifyRequest) {
        if self.check(&request) {
            reply(request.reply, true);
            return;
        }
        // With no room behind them, the strangers are refused at once as well.
        if let Err(error) = self.strangers.0.try_send(Stranger::Refused(request.reply)) {
            self.refuse(error.into_inner());
        }
    }

    fn refuse(&self, stranger: Stranger) {
        let to = match stranger {
            Stranger::Unknown(request) => {
                self.check(&request);
                request.reply
            }
            Stranger::Refused(to) => to,
        };
        reply(to, false);
    }

    fn check(&self, request: &VerifyRequest) -> bool {
        self.checker.check(request.hash.as_deref(), &request.system_id, &request.password)
    }
}

/// The reply is the caller's code; whatever it does must not take the thread from the others.
fn reply(to: Box<dyn FnOnce(bool) + Send>, is_right: bool) {
    if catch_unwind(AssertUnwindSafe(|| to(is_right))).is_err() {
        log::error!("a reply to a password check panicked");
    }
}

/// What the threads share.
struct Checker {
    /// What the passwords of unknown accounts are checked against.
    dummy: String,
    key: [u8; 32],
    cache: RwLock<Cache>,
}

impl Checker {
    fn check(&self, hash: Option<&str>, system_id: &[u8], password: &[u8]) -> bool {
        let parsed = hash.and_then(|hash| PasswordHash::new(hash).ok());
        let Some(parsed) = parsed else {
            let dummy = PasswordHash::new(&self.dummy);
            let _ = dummy.map(|dummy| Argon2::default().verify_password(password, &dummy));
            return false;
        };
        let mark = self.mark(hash.unwrap_or_default(), system_id, password);
        // A set of marks is whole between any two of its operations.
        if self.cache.read().unwrap_or_else(PoisonError::into_inner).contains(&mark) {
            return true;
        }
        let is_right = Argon2::default().verify_password(password, &parsed).is_ok();
        if is_right {
            self.cache.write().unwrap_or_else(PoisonError::into_inner).insert(mark);
        }
        is_right
    }

    fn mark(&self, hash: &str, system_id: &[u8], password: &[u8]) -> Mark {
        let mut mac = Blake2sMac256::new(&self.key.into());
        for part in [hash.as_bytes(), system_id, password] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize_fixed().into()
    }
}

/// Credentials that were right, as MACs under a key of this process: of no use outside it. A new password
/// has a new hash, so that the old one no longer finds its mark.
struct Cache {
    marks: HashSet<Mark>,
    oldest_first: VecDeque<Mark>,
    marks_max: usize,
}

type Mark = [u8; 32];

impl Cache {
    fn new(marks_max: usize) -> Self {
        Self { marks: HashSet::new(), oldest_first: VecDeque::new(), marks_max }
    }

    fn contains(&self, mark: &Mark) -> bool {
        self.marks.contains(mark)
    }

    fn insert(&mut self, mark: Mark) {
        if !self.marks.insert(mark) {
            return;
        }
        self.oldest_first.push_back(mark);
        if self.oldest_first.len() > self.marks_max
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.marks.remove(&oldest);
        }
    }
}

/// Hashes a password with argon2id and a fresh salt, in PHC form.
///
/// # Errors
/// A password that no bind request can carry; or the system has no random numbers.
pub(super) fn hash(password: &str) -> Result<String, PasswordError> {
    if password.is_empty() {
        return Err(PasswordError::Empty);
    }
    if password.len() > PASSWORD_OCTETS_MAX {
        return Err(PasswordError::TooLong);
    }
    if !password.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(PasswordError::NotPrintable);
    }
    let salt = random::<16>().map_err(PasswordError::System)?;
    let failed =
        |error: argon2::password_hash::Error| PasswordError::System(io::Error::other(error.to_string()));
    let salt = SaltString::encode_b64(&salt).map_err(failed)?;
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt).map_err(failed)?.to_string())
}

/// Whether a text is a hash as [`hash`] makes it.
pub(super) fn is_hash(text: &str) -> bool {
    PasswordHash::new(text)
        .is_ok_and(|parsed| parsed.algorithm == argon2::ARGON2ID_IDENT && parsed.hash.is_some())
}

/// Makes up a password: eight letters and digits, 40 random bits.
///
/// # Errors
/// The system has no random numbers.
pub(super) fn generate() -> io::Result<String> {
    let octets = random::<PASSWORD_OCTETS_MAX>()?;
    Ok(octets.iter().map(|octet| char::from(UNAMBIGUOUS[usize::from(octet % 32)])).collect())
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).map_err(io::Error::from)?;
    Ok(octets)
}

/// Why a password cannot be hashed.
#[derive(Debug)]
pub(super) enum PasswordError {
    /// No octet.
    Empty,
    /// More than the field holds.
    TooLong,
    /// Octets that are no printable ASCII.
    NotPrintable,
    /// No random numbers, or not enough memory.
    System(io::Error),
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the password is empty"),
            Self::TooLong => {
                f.write_str("the password has more than 8 characters; the field in a bind request holds 8")
            }
            Self::NotPrintable => {
                f.write_str("the password has characters other than printable ASCII, or blanks")
            }
            Self::System(error) => write!(f, "the password cannot be hashed: {error}"),
        }
    }
}

impl Error for PasswordError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn checker(marks_max: usize) -> Checker {
        let dummy = hash("dummy").expect("a hash");
        Checker { dummy, key: random().expect("random numbers"), cache: RwLock::new(Cache::new(marks_max)) }
    }

    #[test]
    fn a_hash_fits_its_password_only() {
        let checker = checker(10);
        let hash = hash("secret08").expect("a hash");
        assert!(hash.starts_with("$argon2id$") && is_hash(&hash));
        for _ in 0..2 {
            assert!(checker.check(Some(&hash), b"demo", b"secret08"));
            assert!(!checker.check(Some(&hash), b"demo", b"secret09"));
            assert!(!checker.check(Some(&hash), b"demo", b""));
            assert!(!checker.check(None, b"demo", b"secret08"));
            assert!(!checker.check(Some("no hash"), b"demo", b"secret08"));
        }
        assert_ne!(super::hash("secret08").expect("a hash"), hash, "a fresh salt each time");
    }

    #[test]
    fn the_dummy_opens_nothing() {
        let checker = checker(10);
        assert!(!checker.check(None, b"demo", b"dummy"));
    }

    #[test]
    fn only_what_was_right_is_remembered_and_only_for_its_hash() {
        let checker = checker(2);
        let [first, second, third] = [(); 3].map(|()| hash("secret").expect("a hash"));
        checker.check(Some(&first), b"a", b"wrong");
        assert_eq!(checker.cache.read().expect("a lock").marks.len(), 0);
        for hash in [&first, &first, &second, &third] {
            assert!(checker.check(Some(hash), b"a", b"secret"));
        }
        let cache = checker.cache.read().expect("a lock");
        let is_known = |hash: &str, password: &[u8]| cache.contains(&checker.mark(hash, b"a", password));
        assert_eq!([&first, &second, &third].map(|hash| is_known(hash, b"secret")), [false, true, true]);
        assert!(!is_known(&second, b"wrong"));
        assert_eq!((cache.marks.len(), cache.oldest_first.len()), (2, 2));
    }

    #[test]
    fn parts_do_not_run_into_one_another() {
        let (one, other) = (checker(1), checker(1));
        assert_ne!(one.mark("h", b"ab", b"c"), one.mark("h", b"a", b"bc"));
        assert_ne!(one.mark("h", b"a", b"b"), other.mark("h", b"a", b"b"), "each process has its key");
    }

    #[test]
    fn passwords_that_no_bind_can_carry_are_refused() {
        for (password, reason) in [
            ("", "empty"),
            ("ninechars", "holds 8"),
            ("ümlaut", "printable"),
            ("a b", "printable"),
            ("a\0", "printable"),
        ] {
            let error = hash(password).expect_err(password).to_string();
            assert!(error.contains(reason), "{password}: {error}");
        }
    }

    #[test]
    fn made_up_passwords_can_be_read_aloud() {
        let made: HashSet<String> = (0..100).map(|_| generate().expect("random numbers")).collect();
        assert_eq!(made.len(), 100);
        for password in made {
            assert_eq!(password.len(), PASSWORD_OCTETS_MAX);
            assert!(
                !password.contains(['0', 'o', '1', 'l'])
                    && password.bytes().all(|o| o.is_ascii_alphanumeric())
            );
        }
    }

    #[test]
    fn threads_answer_and_a_full_queue_says_so() {
        let verifier = Verifier::start(1, 1).expect("a thread");
        let hash: Box<str> = hash("secret").expect("a hash").into();
        let (replies, verdicts) = crossbeam_channel::unbounded();
        let request = |password: &[u8]| VerifyRequest {
            hash: Some(hash.clone()),
            system_id: (*b"demo").into(),
            password: password.into(),
            reply: {
                let replies = replies.clone();
                Box::new(move |is_right| replies.send(is_right).expect("the test listens"))
            },
        };
        // The thread waits in its reply until the queue has been seen to be full.
        let (go_on, until_full) = bounded(1);
        let blocking = VerifyRequest {
            reply: Box::new(move |_| {
                let _ = until_full.recv();
                panic!("on purpose");
            }),
            ..request(b"secret")
        };
        assert!(verifier.try_send(blocking).is_ok());
        let mut sent = 0;
        while verifier.try_send(request(b"secret")).is_ok() {
            sent += 1;
            assert!(sent <= 2, "the queue never fills");
        }
        go_on.send(()).expect("the reply waits");
        for _ in 0..sent {
            assert_eq!(verdicts.recv(), Ok(true));
        }
        let mut last = request(b"wrong");
        while let Err(unsent) = verifier.try_send(last) {
            last = unsent;
            thread::yield_now();
        }
        assert_eq!(verdicts.recv(), Ok(false));
    }

    #[test]
    fn customers_do_not_wait_behind_strangers() {
        const STRANGERS_MAX: usize = 8;
        let verifier = Verifier::start(1, STRANGERS_MAX).expect("a thread");
        let hash: Box<str> = hash("secret").expect("a hash").into();
        let (replies, verdicts) = crossbeam_channel::unbounded();
        let request = |name: &'static str, hash: Option<&str>, password: &[u8]| VerifyRequest {
            hash: hash.map(Box::from),
            system_id: name.as_bytes().into(),
            password: password.into(),
            reply: {
                let replies = replies.clone();
                Box::new(move |is_right| replies.send((name, is_right)).expect("the test listens"))
            },
        };
        assert!(!verifier.knows(Some(&hash), b"early", b"secret"));
        assert!(verifier.try_send(request("early", Some(&hash), b"secret")).is_ok());
        assert_eq!(verdicts.recv(), Ok(("early", true)));

        // The thread waits in this reply while others come.
        let (is_there, there) = bounded(1);
        let (go_on, until_all_wait) = bounded(1);
        let first = VerifyRequest {
            reply: Box::new(move |_| {
                is_there.send(()).expect("the test listens");
                let _ = until_all_wait.recv();
            }),
            ..request("stranger", None, b"guess")
        };
        assert!(verifier.try_send(first).is_ok());
        there.recv().expect("the thread works");
        for _ in 0..STRANGERS_MAX - 1 {
            assert!(verifier.try_send(request("stranger", None, b"guess")).is_ok());
        }
        assert!(verifier.try_send(request("wrong", Some(&hash), b"guess")).is_ok());
        assert!(verifier.try_send(request("late", Some(&hash), b"secret")).is_ok());
        assert!(verifier.try_send(request("stranger", None, b"guess")).is_ok());
        assert!(verifier.try_send(request("stranger", None, b"guess")).is_err(), "no more strangers");
        assert!(verifier.knows(Some(&hash), b"early", b"secret"), "nobody waits for what is known");
        assert!(!verifier.knows(Some(&hash), b"early", b"guess"));
        assert!(!verifier.knows(None, b"early", b"secret"));
        go_on.send(()).expect("the reply waits");
        let mut order: Vec<_> = (0..STRANGERS_MAX + 2).map(|_| verdicts.recv().expect("a verdict")).collect();
        // With the strangers' queue full, a wrong password is refused as they would be.
        assert_eq!(order.remove(0), ("wrong", false));
        assert_eq!(order.remove(0), ("late", true));
        assert_eq!(order, [("stranger", false); STRANGERS_MAX]);

        // With room there, it waits its turn among the strangers.
        let (is_there, there) = bounded(1);
        let (go_on, until_all_wait) = bounded(1);
        let first = VerifyRequest {
            reply: Box::new(move |_| {
                is_there.send(()).expect("the test listens");
                let _ = until_all_wait.recv();
            }),
            ..request("stranger", None, b"guess")
        };
        assert!(verifier.try_send(first).is_ok());
        there.recv().expect("the thread works");
        assert!(verifier.try_send(request("stranger", None, b"guess")).is_ok());
        assert!(verifier.try_send(request("wrong", Some(&hash), b"guess")).is_ok());
        go_on.send(()).expect("the reply waits");
        let order: Vec<_> = (0..2).map(|_| verdicts.recv().expect("a verdict")).collect();
        assert_eq!(order, [("stranger", false), ("wrong", false)]);
    }
}

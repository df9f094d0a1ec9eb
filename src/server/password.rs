//! Passwords: made, hashed, and checked away from the executors, since one check costs milliseconds.

use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use blake2::Blake2sMac256;
use blake2::digest::{FixedOutput, KeyInit, Update};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

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

/// Threads that check passwords. They end when the last clone is gone and the queue is empty.
#[derive(Clone, Debug)]
pub(super) struct Verifier {
    requests: Sender<VerifyRequest>,
}

impl Verifier {
    /// Starts `threads` threads behind a queue of `queue_max` requests.
    ///
    /// # Errors
    /// No thread could be started, or the system has no random numbers.
    pub(super) fn start(threads: usize, queue_max: usize) -> io::Result<Self> {
        let dummy = hash(&generate()?).map_err(io::Error::other)?;
        let checker = Arc::new(Checker { dummy, cache: Mutex::new(Cache::new(CACHE_MAX)?) });
        let (sender, receiver) = bounded(queue_max.max(1));
        for number in 0..threads.max(1) {
            let (checker, receiver) = (Arc::clone(&checker), receiver.clone());
            thread::Builder::new()
                .name(format!("verify-{number}"))
                .spawn(move || work(&checker, &receiver))?;
        }
        Ok(Self { requests: sender })
    }

    /// Queues a request.
    ///
    /// # Errors
    /// The request itself, when there is no room.
    pub(super) fn try_send(&self, request: VerifyRequest) -> Result<(), VerifyRequest> {
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
        })
    }
}

fn work(checker: &Checker, requests: &Receiver<VerifyRequest>) {
    for request in requests {
        // The reply is the caller's code; whatever it does must not take the thread from the others.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let is_right = checker.check(request.hash.as_deref(), &request.system_id, &request.password);
            (request.reply)(is_right);
        }));
        if outcome.is_err() {
            log::error!("a reply to a password check panicked");
        }
    }
}

/// What the threads share.
struct Checker {
    /// What the passwords of unknown accounts are checked against.
    dummy: String,
    cache: Mutex<Cache>,
}

impl Checker {
    fn check(&self, hash: Option<&str>, system_id: &[u8], password: &[u8]) -> bool {
        let parsed = hash.and_then(|hash| PasswordHash::new(hash).ok());
        let Some(parsed) = parsed else {
            let dummy = PasswordHash::new(&self.dummy);
            let _ = dummy.map(|dummy| Argon2::default().verify_password(password, &dummy));
            return false;
        };
        let mark = self.cache().mark([hash.unwrap_or_default().as_bytes(), system_id, password]);
        if self.cache().contains(&mark) {
            return true;
        }
        let is_right = Argon2::default().verify_password(password, &parsed).is_ok();
        if is_right {
            self.cache().insert(mark);
        }
        is_right
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // A set of marks is whole between any two of its operations.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Credentials that were right, as MACs under a key of this process: of no use outside it. A new password
/// has a new hash, so that the old one no longer finds its mark.
struct Cache {
    key: [u8; 32],
    marks: HashSet<Mark>,
    oldest_first: VecDeque<Mark>,
    marks_max: usize,
}

type Mark = [u8; 32];

impl Cache {
    fn new(marks_max: usize) -> io::Result<Self> {
        Ok(Self { key: random()?, marks: HashSet::new(), oldest_first: VecDeque::new(), marks_max })
    }

    fn mark(&self, parts: [&[u8]; 3]) -> Mark {
        let mut mac = Blake2sMac256::new(&self.key.into());
        for part in parts {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac.finalize_fixed().into()
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
        Checker { dummy, cache: Mutex::new(Cache::new(marks_max).expect("random numbers")) }
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
        assert_eq!(checker.cache().marks.len(), 0);
        for hash in [&first, &first, &second, &third] {
            assert!(checker.check(Some(hash), b"a", b"secret"));
        }
        let cache = checker.cache();
        let is_known =
            |hash: &str, password: &[u8]| cache.contains(&cache.mark([hash.as_bytes(), b"a", password]));
        assert_eq!([&first, &second, &third].map(|hash| is_known(hash, b"secret")), [false, true, true]);
        assert!(!is_known(&second, b"wrong"));
        assert_eq!((cache.marks.len(), cache.oldest_first.len()), (2, 2));
    }

    #[test]
    fn parts_do_not_run_into_one_another() {
        let cache = Cache::new(1).expect("random numbers");
        assert_ne!(cache.mark([b"h", b"ab", b"c"]), cache.mark([b"h", b"a", b"bc"]));
        assert_ne!(
            cache.mark([b"h", b"a", b"b"]),
            Cache::new(1).expect("random numbers").mark([b"h", b"a", b"b"])
        );
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
}

//! The program from outside: what scripts may rely on.
#![cfg(feature = "server")]

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{FlockOperation, flock};

/// A directory of its own to run in, removed with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("smppd-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn run(&self, line: &str) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_smppd"));
        let output = command.args(line.split_whitespace()).current_dir(&self.0).output().expect("smppd runs");
        Outcome::from(output)
    }

    /// Runs a command that must succeed; what it prints.
    fn ok(&self, line: &str) -> String {
        let outcome = self.run(line);
        assert_eq!((outcome.code, &*outcome.err), (0, ""), "{line}");
        outcome.out
    }

    /// Runs a command that must fail; what it complains of.
    fn fails(&self, line: &str, code: i32) -> String {
        let outcome = self.run(line);
        assert_eq!((outcome.code, &*outcome.out), (code, ""), "{line}: {}", outcome.err);
        outcome.err
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Outcome {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |octets| String::from_utf8(octets).expect("text");
        Self {
            code: output.status.code().expect("an exit"),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }
}

fn accounts(file: &Path) -> Vec<toml::Value> {
    let file: toml::Table = toml::from_str(&fs::read_to_string(file).expect("a file")).expect("TOML");
    file.get("account").and_then(toml::Value::as_array).cloned().unwrap_or_default()
}

#[test]
fn help_names_every_flag_and_gives_examples() {
    let place = Place::new("help");
    let help = place.ok("--help");
    for flag in [
        "--config",
        "--data-dir",
        "--cores",
        "--listen",
        "--listen-plain",
        "--tls-cert",
        "--tls-key",
        "--durability",
        "--admin",
        "--log-level",
        "check-config",
        "account",
        "Examples:",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
    let help = place.ok("account add --help");
    for flag in [
        "--password",
        "--bind-limit",
        "--rate",
        "--burst",
        "--credits",
        "--number",
        "--any-source",
        "--binary",
        "--segment-long",
        "--default-alphabet",
        "--data-dir",
        "--config",
        "Examples:",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
    assert!(place.ok("--version").starts_with("smppd 0."));
}

#[test]
fn check_config_says_ok_or_why_not() {
    let place = Place::new("check");
    let text = place.ok("check-config");
    assert!(text.starts_with("defaults: ok\nall cores, durability fsync, data in smppd-data"), "{text}");
    place.write("default.toml", &place.ok("check-config --print-default"));
    assert!(place.ok("check-config --config default.toml").starts_with("default.toml: ok\n"));
    place.write("good.toml", "cores = 2\n[listen]\nplain = [\"127.0.0.1:2775\"]\n");
    let text = place.ok("check-config --config good.toml --data-dir d");
    for part in ["good.toml: ok\n2 cores,", "data in d", "plain 127.0.0.1:2775", "1 route", "no accounts yet"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    for (file, complaint) in [
        ("cores = 129", "smppd: bad.toml: cores: 129 is not within 0 to 128\n"),
        (
            "[session]\nwindow_in_max = 0",
            "smppd: bad.toml: session.window_in_max: 0 is not within 1 to 1000000\n",
        ),
        ("[tls]\nkey = \"k\"", "smppd: bad.toml: tls.certificate: is missing beside tls.key\n"),
    ] {
        place.write("bad.toml", file);
        assert_eq!(place.fails("check-config --config bad.toml", 2), complaint);
        assert_eq!(place.fails("serve --config bad.toml", 2), complaint);
        assert_eq!(place.fails("account list --config bad.toml", 2), complaint);
    }
    assert!(place.fails("check-config --config none.toml", 2).starts_with("smppd: none.toml: No such file"));
    place.write("accounts.toml", "[[account]]\nsystem_id = \"a\"");
    let complaint = place.fails("check-config --data-dir .", 2);
    assert!(
        complaint.starts_with("smppd: ./accounts.toml: account \"a\": password_hash: missing"),
        "{complaint}"
    );
}

#[test]
fn bad_flags_exit_with_2() {
    let place = Place::new("flags");
    for line in
        ["--cores x", "--cores 300", "--admin 0.0.0.0:9776", "--tls-cert c", "--durability disk", "dance"]
    {
        place.fails(line, 2);
    }
    assert_eq!(fs::read_dir(&place.0).expect("entries").count(), 0, "nothing was made");
}

#[test]
fn an_account_is_added_listed_changed_and_removed() {
    let place = Place::new("account");
    let file = place.path("smppd-data/accounts.toml");
    assert_eq!(place.ok("account list").lines().count(), 1);

    let text = place.ok("account add demo --number 12125550100 --number +4420 --rate 50 --binary");
    let password = text.lines().find_map(|line| line.strip_prefix("password: ")).expect("a password");
    assert_eq!(password.len(), 8);
    assert!(text.starts_with("account demo added to smppd-data/accounts.toml\n"), "{text}");
    assert!(text.ends_with("takes effect when smppd starts\n"), "{text}");
    let [demo] = &accounts(&file)[..] else { panic!("one account") };
    let hash = demo["password_hash"].as_str().expect("a hash");
    assert!(hash.starts_with("$argon2id$") && !hash.contains(password));
    assert_eq!(demo["bind_limit"].as_integer(), Some(10));

    let text = place.ok("account add other --password secret --credits 1000 --default-alphabet gsm");
    assert!(!text.contains("password") && !text.contains("secret"), "{text}");
    let list = place.ok("account list");
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["demo", "10", "50", "-", "-", "ascii", "binary", "12125550100,+4420"]);
    assert_eq!(rows[2], ["other", "10", "-", "-", "1000", "gsm", "-", "-"]);

    place.ok("account set demo --bind-limit 0 --no-binary --any-source --segment-long");
    let changed = &accounts(&file)[0];
    assert_eq!(changed["password_hash"].as_str(), Some(hash), "what is not given stays");
    let rows = place.ok("account list");
    assert!(rows.contains("any-source,segment-long"), "{rows}");
    place.ok("account set demo --password n3wpass --no-numbers --no-any-source --no-segment-long");
    let changed = &accounts(&file)[0];
    assert_ne!(changed["password_hash"].as_str(), Some(hash));
    assert_eq!(changed["numbers"].as_array().map(Vec::len), Some(0));
    assert_eq!(changed["any_source"].as_bool(), Some(false));

    assert!(place.ok("account remove demo").starts_with("account demo removed"));
    assert_eq!(accounts(&file).len(), 1);
}

#[test]
fn what_cannot_be_an_account_changes_nothing() {
    let place = Place::new("refused");
    place.ok("account add demo --password secret --number 4420");
    let before = fs::read_to_string(place.path("smppd-data/accounts.toml")).expect("a file");
    for (line, code, complaint) in [
        ("account add demo --password x", 1, "there is an account \"demo\" already"),
        ("account add a --password ninechars", 2, "--password: the password has more than 8 characters"),
        ("account add a --password=", 2, "--password: the password is empty"),
        ("account add sixteencharacter --password x", 2, "account \"sixteencharacter\": system_id: "),
        ("account add a --number not-a-number-at-all", 2, "numbers: \"not-a-number-at-all\""),
        ("account add a --number +4420", 2, "belongs to account \"demo\" already"),
        ("account add a --rate=-1", 2, "--rate <N>"),
        ("account add a --default-alphabet ebcdic", 2, "possible values: ascii, gsm, latin1"),
        ("account set nobody --rate 1", 1, "there is no account \"nobody\""),
        ("account remove nobody", 1, "there is no account \"nobody\""),
        ("account set demo --number 1 --no-numbers", 2, "cannot be used with"),
    ] {
        let error = place.fails(line, code);
        assert!(error.contains(complaint), "{line}: {error}");
        assert_eq!(
            fs::read_to_string(place.path("smppd-data/accounts.toml")).expect("a file"),
            before,
            "{line}"
        );
    }
}

#[test]
fn accounts_live_where_the_settings_say() {
    let place = Place::new("where");
    place.write("smppd.toml", "data_dir = \"data\"\n[accounts]\nfile = \"etc/people.toml\"\n");
    place.ok("account add a --password x --config smppd.toml");
    assert_eq!(accounts(&place.path("etc/people.toml")).len(), 1);
    place.ok("account add b --password x --data-dir elsewhere");
    assert_eq!(accounts(&place.path("elsewhere/accounts.toml")).len(), 1);
}

#[test]
fn accounts_added_at_the_same_time_are_all_there() {
    let place = Place::new("together");
    let adds: Vec<_> = (0..8)
        .map(|number| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_smppd"));
            command.args(["account", "add", &format!("a{number}")]).current_dir(&place.0);
            command.stdout(std::process::Stdio::null()).spawn().expect("smppd runs")
        })
        .collect();
    for mut add in adds {
        assert!(add.wait().expect("an end").success());
    }
    assert_eq!(accounts(&place.path("smppd-data/accounts.toml")).len(), 8);
}

#[test]
fn a_running_server_is_told() {
    let place = Place::new("told");
    place.ok("account add demo");
    // Somebody who dies of a SIGHUP stands in for the server, even where whoever runs the tests ignores it.
    let mut server = Command::new("env");
    let mut server = server.args(["--default-signal=HUP", "sleep", "60"]).spawn().expect("env runs");
    let pid = server.id();
    while fs::read_to_string(format!("/proc/{pid}/comm")).expect("a process") != "sleep\n" {
        assert!(server.try_wait().expect("a child").is_none(), "env ended");
        std::thread::yield_now();
    }
    place.write("smppd-data/LOCK", &format!("{pid}\n"));
    let text = place.ok("account set demo --rate 1");
    assert!(text.ends_with("takes effect when smppd starts\n"), "nobody holds the lock: {text}");
    let lock = File::open(place.path("smppd-data/LOCK")).expect("the lock file");
    flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("the lock");
    let text = place.ok("account set demo --rate 2");
    assert!(text.ends_with(&format!("smppd (pid {pid}) was told to read its accounts again\n")), "{text}");
    assert_eq!(server.wait().expect("an end").signal(), Some(1), "SIGHUP");
}

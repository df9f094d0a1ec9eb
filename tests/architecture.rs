//! Who may import whom. Changing the table is changing the architecture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the library and the modules it may name. `server` may name them all, and only `main` it.
const MAY_IMPORT: [(&str, &[&str]); 13] = [
    ("time", &[]),
    ("metrics", &[]),
    ("route", &[]),
    // Receipts and time fields carry points in time.
    ("pdu", &["time"]),
    ("throttle", &["time"]),
    ("account", &["pdu", "throttle"]),
    ("session", &["pdu", "time"]),
    ("message", &["pdu", "time"]),
    ("carrier", &["message", "pdu", "time"]),
    ("journal", &["message", "pdu", "time"]),
    ("store", &["journal", "message", "pdu", "time"]),
    (
        "shard",
        &[
            "account", "carrier", "journal", "message", "metrics", "pdu", "route", "session", "store",
            "throttle", "time",
        ],
    ),
    // Fills in the settings that each module declares.
    (
        "config",
        &["account", "carrier", "journal", "message", "pdu", "route", "session", "shard", "store", "time"],
    ),
];

/// Crates that touch the world: the server's alone.
const WORLDLY: [&str; 11] = [
    "glommio",
    "rustls",
    "sled",
    "crossbeam_channel",
    "futures_lite",
    "libc",
    "log",
    "env_logger",
    "argon2",
    "socket2",
    "signal_hook",
];

/// Parts of the standard library that the core does without.
const WORLDLY_STD: [&str; 6] =
    ["std::net", "std::fs", "std::thread", "std::time::Instant", "std::time::SystemTime", "std::env"];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module that a source file belongs to.
fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix("src").expect("below src");
    let first = relative.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.strip_suffix(".rs").unwrap_or(&first).to_owned()
}

/// The code of a file: without its comments, and without its unit tests where `tests` is false.
fn code(path: &Path, tests: bool) -> String {
    let text = fs::read_to_string(path).expect("readable");
    let text = if tests { &*text } else { text.split("\nmod tests {").next().unwrap_or_default() };
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The words that follow each `crate::`.
fn imports(code: &str) -> BTreeSet<&str> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|letter| !is_word(letter)).next().unwrap_or(""))
        .collect()
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.into_iter().collect();
    let mut paths = Vec::new();
    sources(Path::new("src"), &mut paths);
    let mut faults = Vec::new();
    for path in &paths {
        let module = module_of(path);
        if matches!(&*module, "server" | "main" | "lib") {
            continue;
        }
        let allowed = table.get(&*module).unwrap_or_else(|| panic!("{module} is not in the table"));
        for import in imports(&code(path, true)) {
            if import != module
                && table.contains_key(import) | (import == "server")
                && !allowed.contains(&import)
            {
                faults.push(format!("{} imports {import}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(paths.len() > 40, "only {} sources found", paths.len());
}

#[test]
fn the_core_does_not_touch_the_world() {
    let mut paths = Vec::new();
    sources(Path::new("src"), &mut paths);
    let mut faults = Vec::new();
    for path in paths.iter().filter(|path| !matches!(&*module_of(path), "server" | "main" | "lib")) {
        let code = code(path, false);
        let named =
            |name: &&str| code.contains(&format!("{name}::")) || code.contains(&format!("use {name}"));
        let mut worldly: Vec<&str> = WORLDLY.into_iter().filter(named).collect();
        // An address and a path are values; only what opens them touches the world.
        let is_value = |name: &str| name == "std::net" && module_of(path) == "config";
        worldly.extend(WORLDLY_STD.into_iter().filter(|name| code.contains(name) && !is_value(name)));
        faults.extend(worldly.into_iter().map(|name| format!("{} names {name}", path.display())));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_main_knows_the_server() {
    let text = code(Path::new("src/main.rs"), true);
    assert!(text.contains("smppd::server"));
    let mut paths = Vec::new();
    sources(Path::new("bench-harness/src"), &mut paths);
    for path in paths {
        assert!(!code(&path, true).contains("smppd::server"), "{}", path.display());
    }
}

/// A test that passes shows nothing that it printed with a macro: what is skipped is said by `support::skip`, or nobody
/// hears of it.
#[test]
fn no_test_is_skipped_in_silence() {
    let mut paths = Vec::new();
    sources(Path::new("tests"), &mut paths);
    assert!(paths.len() > 20, "only {} sources found", paths.len());
    for path in paths {
        // In two parts, so that these lines are not found.
        let code = code(&path, true);
        let silent = [concat!("eprint", "ln!"), concat!("#[ig", "nore")].map(|form| code.contains(form));
        let may_print = ["tests/simulation", "tests/support"].iter().any(|folder| path.starts_with(folder));
        assert!(
            may_print || silent == [false, false],
            "{} prints what nobody sees, or skips",
            path.display()
        );
    }
}

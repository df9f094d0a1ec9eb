//! Small files that are whole or not there, and folders that stay, whenever the power goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use rustix::process::geteuid;

use crate::server::fault::{self, Point};

/// Puts a file in the place of what is there, if anything, with this mode: written beside it, then renamed, so
/// that neither a reader nor a crash ever finds a part. Durable when it returns.
///
/// # Errors
/// The file cannot be written; the old one is still there then.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    // A link stays one: what it leads to is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = folder_of(&path);
    make_folder(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let draft = folder.join(name);
    let written = write(&draft, text, mode, &path).and_then(|()| fs::rename(&draft, &path));
    if written.is_err() {
        // The reason of the failure is worth more than that of a failing clean-up.
        let _ = fs::remove_file(&draft);
    }
    written?;
    sync_folder(folder)
}

fn write(draft: &Path, text: &str, mode: u32, path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(draft)?;
    let ours = file.metadata()?;
    let owner = match fs::metadata(path) {
        Ok(old) => old,
        // Root may manage the files of a server that runs as somebody else, who has to read them.
        Err(_) if geteuid().is_root() => fs::metadata(folder_of(path))?,
        Err(_) => file.metadata()?,
    };
    if (owner.uid(), owner.gid()) != (ours.uid(), ours.gid()) {
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Makes a folder, and those above it that are missing; each that was made is durable when it returns.
///
/// # Errors
/// A folder cannot be made or synced.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = folder_of(path);
    make_folder(above)?;
    match fs::create_dir(path) {
        // Somebody else may have made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(io::Error::other("there is something else, which is no folder"));
        }
        outcome => outcome?,
    }
    sync_folder(above)
}

/// Makes durable which names a folder has.
///
/// # Errors
/// It cannot be read or synced.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    fault::strike(Point::FolderSync, path)?;
    File::open(path)?.sync_all()
}

/// The folder that a file or folder is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_draft() {
        let place = std::env::temp_dir().join(format!("smppd-durable-{}", std::process::id()));
        let path = place.join("deep/er/file");
        for (text, mode) in [("a longer text", 0o644), ("short", 0o600)] {
            replace(&path, text, mode).expect("replaced");
            assert_eq!(fs::read_to_string(&path).expect("a text"), text);
            let permissions = fs::metadata(&path).expect("a file").permissions();
            assert_eq!(permissions.mode() & 0o777 & !mode, 0, "{permissions:?}");
        }
        // A folder cannot be replaced by a file.
        assert!(replace(&place.join("deep"), "text", 0o600).is_err());
        for folder in [&place, folder_of(&path)] {
            assert_eq!(fs::read_dir(folder).expect("entries").count(), 1, "no draft is left");
        }
        make_folder(&place).expect("there already");
        assert!(make_folder(&path).is_err(), "a file is in its place");
        fs::remove_dir_all(&place).expect("removed");
    }

    /// Where folders were synced, and what `look` saw there, while `what` was done.
    #[cfg(debug_assertions)]
    fn synced<S: 'static>(
        look: impl Fn() -> S + 'static,
        what: impl FnOnce() -> io::Result<()>,
    ) -> Vec<(std::path::PathBuf, S)> {
        let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let watcher = {
            let seen = std::rc::Rc::clone(&seen);
            move |point, folder: &Path| {
                assert_eq!(point, Point::FolderSync);
                seen.borrow_mut().push((folder.to_owned(), look()));
                Ok(())
            }
        };
        fault::watch(watcher, what).expect("done");
        seen.take()
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_new_name_is_durable_when_a_file_is_replaced_and_a_folder_made() {
        let place = std::env::temp_dir().join(format!("smppd-synced-{}", std::process::id()));
        // Of a run that was ended, its number given again.
        let _ = fs::remove_dir_all(&place);
        let deep = place.join("deep/er");
        let made = {
            let deep = deep.clone();
            synced(move || deep.is_dir(), || make_folder(&place.join("deep/er")))
        };
        let above = std::env::temp_dir();
        assert_eq!(made, [(above, false), (place.clone(), false), (place.join("deep"), true)]);
        assert_eq!(synced(|| (), || make_folder(&place)), [], "it was there");
        let path = deep.join("file");
        for text in ["one", "another"] {
            let read = {
                let path = path.clone();
                move || fs::read_to_string(&path).unwrap_or_default()
            };
            // Behind the rename, or that may be lost.
            assert_eq!(synced(read, || replace(&path, text, 0o600)), [(deep.clone(), text.to_owned())]);
        }
        let failing = |_, _: &Path| Err(io::Error::other("the test says so"));
        assert!(fault::watch(failing, || replace(&path, "third", 0o600)).is_err(), "not durable, not done");
        fs::remove_dir_all(&place).expect("removed");
    }

    #[test]
    fn a_folder_that_cannot_be_synced_is_told_of() {
        // The kernel syncs nothing of this file system.
        let error = sync_folder(Path::new("/proc/self")).expect_err("it was not synced");
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{error}");
    }
}

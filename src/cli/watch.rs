//! Files that belong to the configuration, watched for changes: certificates, keys, secrets.
//!
//! They are looked at every second, by name, so that it makes no difference how they are replaced: written over, renamed into
//! place, or by way of a symbolic link to their folder, on any kind of file system. What has changed is told when it has been
//! the same for two looks, as half a secret is no secret.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, Interval, MissedTickBehavior};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Before what could not be used is told again, though it has not changed since.
const AGAIN: Duration = Duration::from_secs(10);

/// What tells a file from the one that was there before. `None`: it cannot be seen.
type Stamp = Option<(SystemTime, u64, u64)>;

/// What the files looked like at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look(Vec<Stamp>);

/// The files, and what is known of them.
#[derive(Debug)]
pub(super) struct Watch {
    files: Vec<PathBuf>,
    time: Interval,
    /// As they were when they were read for the configuration in force.
    read: Look,
    last: Look,
    /// As they were when they were told last, and when that was.
    told: Option<(Look, Instant)>,
}

impl Watch {
    /// Watches these files, which have just been read.
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        let read = Look::at(&files);
        let mut time = tokio::time::interval(LOOK);
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { files, time, last: read.clone(), read, told: None }
    }

    /// How the files look now, before they are read.
    pub(super) async fn look(&self) -> Look {
        // A file system that hangs holds nobody else up.
        let files = self.files.clone();
        let look = tokio::task::spawn_blocking(move || Look::at(&files)).await;
        look.unwrap_or_else(|_| self.last.clone())
    }

    /// These files were read after this look at those before.
    pub(super) fn set(&mut self, files: Vec<PathBuf>, before: &Look) {
        let mut read = Look::at(&files);
        for (at, file) in files.iter().enumerate() {
            // What has changed while it was read is read again.
            if let Some(known) = self.files.iter().position(|known| known == file) {
                read.0[at] = before.0.get(known).copied().flatten();
            }
        }
        (self.files, self.last, self.read, self.told) = (files, read.clone(), read, None);
    }

    /// Waits until they are others than those that were read; returns how they look. Told again for as long as they are not
    /// [set](Watch::set).
    pub(super) async fn change(&mut self) -> Look {
        loop {
            self.time.tick().await;
            let now = self.look().await;
            let is_settled = now == self.last;
            self.last = now.clone();
            let is_told = self.told.as_ref().is_some_and(|(told, at)| *told == now && at.elapsed() < AGAIN);
            if is_settled && now != self.read && !is_told {
                self.told = Some((now.clone(), Instant::now()));
                return now;
            }
        }
    }
}

impl Look {
    fn at(files: &[PathBuf]) -> Self {
        Self(files.iter().map(|file| stamp(file)).collect())
    }
}

/// Symbolic links are followed.
fn stamp(file: &Path) -> Stamp {
    let data = fs::metadata(file).ok()?;
    #[cfg(unix)]
    let identity = std::os::unix::fs::MetadataExt::ino(&data);
    #[cfg(not(unix))]
    let identity = 0;
    Some((data.modified().ok()?, data.len(), identity))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_told(watch: &mut Watch, within: Duration) -> Option<Look> {
        tokio::time::timeout(within, watch.change()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_when_it_has_settled_and_until_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "one").unwrap();
        let mut watch = Watch::new(vec![file.clone()]);
        let minute = Duration::from_secs(60);
        assert_eq!(is_told(&mut watch, minute).await, None);
        fs::write(&file, "other").unwrap();
        let look = is_told(&mut watch, minute).await.expect("a change");
        assert_eq!(is_told(&mut watch, Duration::from_secs(5)).await, None);
        assert_eq!(is_told(&mut watch, minute).await, Some(look.clone()), "what was not read is told again");
        watch.set(vec![file.clone()], &look);
        assert_eq!(is_told(&mut watch, minute).await, None);
        // Gone, and there again by a rename.
        fs::remove_file(&file).unwrap();
        assert!(is_told(&mut watch, minute).await.is_some());
        fs::write(folder.path().join("new"), "third").unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
        assert!(is_told(&mut watch, Duration::from_secs(5)).await.is_some());
    }

    #[cfg(unix)]
    #[tokio::test(start_paused = true)]
    async fn a_link_that_is_swapped_changes_what_is_behind_it() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("tls.crt"), "same length").unwrap();
        }
        symlink("1", at("..data")).unwrap();
        symlink("..data/tls.crt", at("tls.crt")).unwrap();
        let mut watch = Watch::new(vec![at("tls.crt")]);
        assert_eq!(is_told(&mut watch, Duration::from_secs(5)).await, None);
        symlink("2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert!(is_told(&mut watch, Duration::from_secs(5)).await.is_some());
    }
}

//! Where files with secrets are: at a path, or among the credentials that systemd hands to a service
//! (`LoadCredential=`, systemd.exec(5)), which are written `credential:NAME`.

use std::path::{Path, PathBuf};

use super::{finding::Place, host::Host, reader::Section};

/// What a credential's name stands behind.
const CREDENTIAL: &str = "credential:";
/// Where systemd says that credentials are.
const FOLDER: &str = "CREDENTIALS_DIRECTORY";

/// The path of the file that is `written` at `place`; a relative one is relative to `base`. `None` once an error is reported.
pub(super) fn file(
    section: &Section<'_>,
    (written, place): (&str, &Place),
    base: &Path,
    host: &Host,
) -> Option<PathBuf> {
    let Some(name) = written.strip_prefix(CREDENTIAL) else { return Some(base.join(written)) };
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        let remedy = "write the name alone, as in LoadCredential=NAME:/etc/turnserver/secret";
        section.report.error(place, "does not name a credential", remedy);
        return None;
    }
    let folder = (host.variable)(FOLDER).ok().filter(|folder| !folder.is_empty());
    if folder.is_none() {
        let what = format!("there are no credentials: the environment variable {FOLDER} is not set");
        let remedy = format!("add LoadCredential={name}:/a/file to the unit, or write the path of a file");
        section.report.error(place, what, remedy);
    }
    folder.map(|folder| Path::new(&folder).join(name))
}

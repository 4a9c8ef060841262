//! `turnserver certificate`: a self-signed certificate and its key.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

/// A clock that is a little late still finds the certificate valid.
const BEFORE: Duration = Duration::from_secs(24 * 60 * 60);

/// What to make.
#[derive(Debug, clap::Args)]
pub(super) struct Certificate {
    /// Sign it with its own key; the only kind made here
    #[arg(long, required = true)]
    self_signed: bool,

    /// Host name or IP address that clients use; repeat it for further ones
    #[arg(long = "name", value_name = "HOST", required = true, num_args = 1..)]
    names: Vec<String>,

    /// Where to write the certificate
    #[arg(long, value_name = "FILE")]
    out_cert: PathBuf,

    /// Where to write the private key
    #[arg(long, value_name = "FILE")]
    out_key: PathBuf,

    /// For how many days it is valid
    #[arg(long, value_name = "DAYS", default_value = "365", value_parser = clap::value_parser!(u16).range(1..=3650))]
    days: u16,
}

impl Certificate {
    /// Makes it; what goes wrong is said on standard error.
    pub(super) fn make(&self) -> ExitCode {
        match self.pem().and_then(|(certificate, key)| self.write(&certificate, &key)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::FAILURE
            }
        }
    }

    fn pem(&self) -> Result<(String, String), String> {
        let refused = |error| format!("cannot make a certificate for {}: {error}", self.names.join(", "));
        let mut params = CertificateParams::new(self.names.clone()).map_err(refused)?;
        let now = SystemTime::now();
        params.not_before = (now - BEFORE).into();
        params.not_after = (now + Duration::from_secs(u64::from(self.days) * 24 * 60 * 60)).into();
        if let Some(name) = self.names.first() {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(refused)?;
        let certificate = params.self_signed(&key).map_err(refused)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Writes both files or none.
    fn write(&self, certificate: &str, key: &str) -> Result<(), String> {
        let write = |path: &Path, mode, text: &str| {
            create(path, mode).and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
                let remedy = match error.kind() {
                    io::ErrorKind::AlreadyExists => "; remove it, or write to another file",
                    _ => "",
                };
                format!("cannot write {}: {error}{remedy}", path.display())
            })
        };
        write(&self.out_key, 0o600, key)?;
        write(&self.out_cert, 0o644, certificate).inspect_err(|_| {
            // A key without its certificate is of no use, and would be in the way of the next try.
            let _ = fs::remove_file(&self.out_key);
        })
    }
}

/// Creates a file that does not exist yet.
#[cfg_attr(not(unix), allow(unused_variables, reason = "modes are a matter of Unix"))]
fn create(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    options.open(path)
}

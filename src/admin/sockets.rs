//! Where management listens. Opened before clients are served, so that no client reaches these as a peer.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
};

use crate::config::settings::{Access, Management};

/// Why a socket that was asked for cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The port.
    #[error("[management]: cannot listen on {address}: {error}; correct management.listen, or write listen = \"off\"")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The Unix socket.
    #[error("[management]: cannot listen on {}: {error}; correct management.socket, or write socket = \"off\"", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// The listening sockets.
#[derive(Debug, Default)]
pub struct Sockets {
    pub(super) tcp: Option<TcpListener>,
    #[cfg(unix)]
    pub(super) unix: Option<unix::Socket>,
}

impl Sockets {
    /// Opens what the settings say. What is there by default only, and cannot be had, is done without.
    ///
    /// # Errors
    /// [`OpenError`] about what was asked for.
    pub fn open(management: &Management) -> Result<Self, OpenError> {
        let mut sockets = Self::default();
        if let Some(Access { at: address, required }) = management.listen {
            match TcpListener::bind(address).and_then(|listener| listener.set_nonblocking(true).map(|()| listener)) {
                Ok(listener) => sockets.tcp = Some(listener),
                Err(error) if required => return Err(OpenError::Listen { address, error }),
                Err(error) => tracing::warn!(%address, why = %error, "no management over HTTP"),
            }
        }
        #[cfg(unix)]
        if let Some(Access { at: path, required }) = &management.socket
            && (*required || path.parent().is_some_and(std::path::Path::is_dir))
        {
            match unix::Socket::open(path) {
                Ok(socket) => sockets.unix = Some(socket),
                Err(error) if *required => return Err(OpenError::Socket { path: path.clone(), error }),
                Err(error) => tracing::warn!(path = %path.display(), why = %error, "no management socket"),
            }
        }
        Ok(sockets)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        #[cfg(unix)]
        let has_unix = self.unix.is_some();
        #[cfg(not(unix))]
        let has_unix = false;
        self.tcp.is_none() && !has_unix
    }

    /// Addresses of the network that it listens on.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// The path of the Unix socket.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        #[cfg(unix)]
        return self.unix.as_ref().map(|socket| socket.path());
        #[cfg(not(unix))]
        None
    }
}

#[cfg(unix)]
pub(super) mod unix {
    use std::{
        fs, io,
        os::unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
        path::{Path, PathBuf},
    };

    /// For whom it is: the user that the server runs as, and root.
    const MODE: u32 = 0o600;

    /// A Unix socket, which is removed with this value.
    #[derive(Debug)]
    pub(in crate::admin) struct Socket {
        pub(in crate::admin) listener: UnixListener,
        path: PathBuf,
    }

    impl Socket {
        /// Opens it, in the place of one that a server has left behind.
        pub(super) fn open(path: &Path) -> io::Result<Self> {
            if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
                if UnixStream::connect(path).is_ok() {
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, "another server listens there"));
                }
                fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            let socket = Self { listener, path: path.to_owned() };
            fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
            socket.listener.set_nonblocking(true)?;
            Ok(socket)
        }

        pub(super) fn path(&self) -> &Path {
            &self.path
        }
    }

    impl Drop for Socket {
        fn drop(&mut self) {
            // Somebody else may have removed it.
            let _ = fs::remove_file(&self.path);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_a_server_has_left_behind_is_replaced_and_nothing_else() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("control.sock");
            let socket = Socket::open(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
            assert_eq!(Socket::open(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            drop(socket);
            assert!(!path.exists());
            drop(UnixListener::bind(&path).unwrap());
            drop(Socket::open(&path).unwrap());
            fs::write(&path, "a file").unwrap();
            assert!(Socket::open(&path).is_err());
            assert_eq!(fs::read(&path).unwrap(), b"a file");
        }
    }
}

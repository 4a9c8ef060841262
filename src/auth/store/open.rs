//! From the configuration to a store, and to a guarded one with a thread of its own.

use std::{io, sync::Arc, thread};

use tokio::{runtime, sync::oneshot};

use super::{Registry, Store, StoreError, Stores};
use crate::config::settings;

/// A store that was opened.
pub enum Opened {
    /// One that the commands can write to.
    Registry(Arc<dyn Registry>),
    /// One that can only be asked.
    Store(Arc<dyn Store>),
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store itself.
    #[error("the store {0}")]
    Store(#[from] StoreError),
    /// The thread that its connections live on.
    #[error("cannot start a thread for the store: {0}")]
    Thread(#[from] io::Error),
}

/// Opens the store. Databases are connected to when they are first asked, from within the runtime that asks.
#[cfg_attr(
    not(all(
        feature = "sqlite",
        feature = "postgresql",
        feature = "mysql",
        feature = "redis",
        feature = "http-store"
    )),
    allow(unused_variables, reason = "they are for the stores that are built in")
)]
pub fn open(settings: &settings::Store) -> Result<Opened, StoreError> {
    let (connections, timeout) = (settings.connections, settings.limits.timeout);
    match &settings.backend {
        #[cfg(feature = "sqlite")]
        settings::StoreBackend::Sqlite(path) => {
            Ok(Opened::Registry(Arc::new(super::sqlite::SqliteStore::open(path, connections, timeout)?)))
        }
        #[cfg(feature = "postgresql")]
        settings::StoreBackend::Postgresql(settings::Secret(url)) => {
            Ok(Opened::Registry(Arc::new(super::postgresql::PostgresqlStore::open(url, connections)?)))
        }
        #[cfg(feature = "mysql")]
        settings::StoreBackend::Mysql(settings::Secret(url)) => {
            Ok(Opened::Registry(Arc::new(super::mysql::MysqlStore::open(url, connections)?)))
        }
        #[cfg(feature = "redis")]
        settings::StoreBackend::Redis(settings::Secret(url)) => {
            Ok(Opened::Registry(Arc::new(super::redis::RedisStore::open(url)?)))
        }
        #[cfg(feature = "http-store")]
        settings::StoreBackend::Http(service) => {
            Ok(Opened::Store(Arc::new(super::hook::HookStore::open(service, connections)?)))
        }
        // The configuration has refused it before.
        #[cfg(not(all(
            feature = "sqlite",
            feature = "postgresql",
            feature = "mysql",
            feature = "redis",
            feature = "http-store"
        )))]
        other => Err(StoreError::Refused(format!("is not in this build, which has no {}", other.name()))),
    }
}

impl Stores {
    /// Opens the store of the configuration, guarded, on a thread of its own, and begins to see whether it answers: if not,
    /// that is logged. The thread ends with the last copy of what is returned.
    pub fn open(settings: &settings::Store) -> Result<Self, OpenError> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let store: Arc<dyn Store> = match open(settings) {
            Ok(Opened::Registry(registry)) => registry,
            Ok(Opened::Store(store)) => store,
            Err(error) => {
                // Whoever opens a store may be within a runtime, where another one must not be waited for.
                runtime.shutdown_background();
                return Err(error.into());
            }
        };
        let (stop, stopped) = oneshot::channel();
        thread::Builder::new().name("store".to_owned()).spawn(move || {
            // The sender never sends; it is dropped.
            let _: Result<(), _> = runtime.block_on(stopped);
            // What a driver still does in threads of its own is not waited for.
            runtime.shutdown_background();
        })?;
        let limits = settings.limits.clone();
        let stores = Self::with_thread(settings.backend.name(), store, limits, handle.clone(), Some(stop));
        let probed = stores.clone();
        handle.spawn(async move {
            // The guard logs what comes of it.
            let _ = probed.probe().await;
        });
        Ok(stores)
    }
}

//! Configuration: TOML text to validated [`Settings`].

pub mod settings;

pub use settings::Settings;

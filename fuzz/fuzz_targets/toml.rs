#![no_main]

turnserver_fuzz::target!("toml");

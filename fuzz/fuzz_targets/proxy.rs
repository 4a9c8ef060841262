#![no_main]

turnserver_fuzz::target!("proxy");

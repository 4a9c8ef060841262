#![no_main]

turnserver_fuzz::target!("answers");

#![no_main]

turnserver_fuzz::target!("rest");

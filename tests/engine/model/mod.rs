//! Random interleavings of requests, data, time and ends against a reference model.

mod operations;
mod reference;
mod run;

use proptest::{collection::vec, prelude::*};

use self::{
    operations::operation,
    run::{CLIENTS, Run},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every reply, every datagram, every deadline, count, quota and relay socket is what the reference says, after each of
    /// 60 steps; and at the end nothing is left.
    #[test]
    fn the_engine_does_what_the_reference_does(
        operations in vec(operation(CLIENTS.len(), reference::PEERS.len()), 60)
    ) {
        let mut run = Run::new();
        for operation in &operations {
            run.step(operation);
        }
        run.finish();
    }
}

//! The in-memory bus passes the bus suite.

use std::sync::Arc;

use async_trait::async_trait;
use epoch::{
    bus::Bus,
    memory::MemoryBus,
    testkit::bus::{BusFactory, Factory},
};

struct Memory(MemoryBus);

#[async_trait]
impl BusFactory for Memory {
    async fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(self.0.clone())
    }

    async fn publish_malformed(&self) -> bool {
        false
    }

    fn max_in_flight(&self) -> usize {
        256
    }

    fn shares_work(&self) -> bool {
        false
    }
}

epoch::bus_conformance!(async { Arc::new(Memory(MemoryBus::new())) as Factory });

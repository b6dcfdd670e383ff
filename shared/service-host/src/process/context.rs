//! The resources that the services of a process share.

use epoch::{FastPath, memory::MemoryBus};
use http_kit::Secrets;

use crate::{
    buses::BusArgs,
    config::{DatabaseArgs, PeerArgs, ProcessArgs},
};

#[derive(Clone)]
pub struct ProcessContext {
    pub database: DatabaseArgs,
    pub bus: BusArgs,
    pub peers: PeerArgs,
    pub secrets: Secrets,
    /// Delivers events to the handlers of this process right after their commit.
    pub local: FastPath,
    /// The bus if `CATACLOUD_BUS` is `memory`.
    pub memory: MemoryBus,
}

impl ProcessContext {
    #[must_use]
    pub fn new(args: &ProcessArgs) -> Self {
        Self {
            database: args.database.clone(),
            bus: args.bus.clone(),
            peers: args.peers.clone(),
            secrets: args.secret.secrets.clone(),
            local: FastPath::new(),
            memory: MemoryBus::new(),
        }
    }
}

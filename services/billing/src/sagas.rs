//! Reactions to other services' events.

mod open_accounts;

pub use open_accounts::OpenAccounts;

//! The development stack from outside: the command and the servers.

mod command;
mod postgres;

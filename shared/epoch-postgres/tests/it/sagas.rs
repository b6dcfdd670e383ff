//! Order fulfilment by a saga on a real database.

mod effects;
mod equivalence;
mod fast_path;
mod flow;
mod model;
mod shop;
mod workers;

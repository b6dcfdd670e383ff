//! Files that several jobs use, and what of them is whose.
//!
//! The problem: one file serves many jobs, and its cost is to be told by job, without a byte-millisecond lost or invented,
//! whatever days and periods it is cut into.
//!
//! The rule: a segment is a maximal span in which a file's size and its set of linked jobs stay the same. With k jobs sorted by
//! id, rank i from 0, and `A(t) = bytes·(t − segment start)`, job i's cumulative share is `⌊(A(t) + k − 1 − i) / k⌋`; its usage in
//! `[a, b)` is the difference. What no job uses is unattributed.
//!
//! Which rule applies may change ([`Rules`]); at each instant it is the one of that instant, and the change begins no segment.
//!
//! The invariant: jobs and what is unattributed sum to the file exactly, and spans that follow each other sum to the whole exactly,
//! for every job, through changes of the rule too. That a file is deleted doesn't unlink it, and linking it before it is stored, or twice, changes nothing.
//!
//! With `A = q·k + r` the share is `q`, and one more for the first r jobs. So a segment costs the logarithm of the number of jobs,
//! not the number: all take part in one sum of q, and the ones more are kept in a tree over the jobs' ids ([`tree`]).

pub mod file_change;
pub mod rule;
pub mod shares;
mod tree;

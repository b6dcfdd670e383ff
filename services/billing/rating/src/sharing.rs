//! File sharing: the shares of jobs in the storage of files that several jobs use.
//!
//! A segment is a maximal span in which the size of a file and its set of linked jobs are constant. With k
//! jobs sorted by id, rank i from 0, and `A(t) = bytes·(t − segment start)`, the cumulative share of job i is
//! `⌊(A(t) + k − 1 − i) / k⌋`. Its usage in `[a, b)` is the difference. Storage without a linked job is
//! unattributed.
//!
//! Example: a file of 1 byte has 2 jobs. After 5 ms, `A = 5`, so the shares are ⌊6/2⌋ = 3 and ⌊5/2⌋ = 2
//! byte-milliseconds.
//!
//! The sharing rule may change over time ([`SharingRules`](rule::SharingRules)). At each instant the rule of that instant
//! applies, and a change of the rule starts no segment.
//!
//! Invariant: jobs and unattributed storage sum to the file, and contiguous spans sum to their union, for
//! every job and through changes of the rule. Deleting a file keeps its links. Linking it early or twice has
//! no further effect.
//!
//! With `A = q·k + r` the share is `q`, plus one for the first r jobs. So a segment costs O(log k) instead of
//! O(k): all jobs take part in one sum of q, and the extra ones are kept in a tree over the ids of jobs
//! ([`tree`]).

pub mod file_change;
pub mod rule;
pub mod shares;
mod tree;

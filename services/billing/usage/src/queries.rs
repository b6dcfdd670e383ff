//! Answers about usage, from the read models.
//!
//! The problem: an answer is put together from several tables while events go on arriving, late ones too; and what was known at an
//! earlier time must still be told later.
//!
//! The invariant: everything in an answer is read at one moment, and if nothing is left out, in one statement ([`answer`]). Totals
//! come from sums, so they cost days and not events, and nothing that is odd keeps them from being told. For an earlier `known_at`, what
//! was recorded since is taken out of them again, which costs what was recorded since. Listed files of which something was not known yet are
//! computed from all their changes; of jobs of which something was not known yet, what was known is paired anew.
//!
//! Whose a job is, where the rule of sharing asks, is what its creation says. It is the first event of the job and nothing changes it
//! later, so whatever else happens or becomes known, the same question has the same users; only a creation that wasn't heard of yet
//! leaves a job with nobody known until it is.
//!
//! A projection may be rebuilt meanwhile. One statement sees its tables before the swap or after it; a transaction of several holds
//! them from its beginning, or it would see a table that came later without the rows that are younger than itself.

pub mod file_sums;
pub mod groups;
pub mod origins;
pub mod question;
mod reading;
pub mod snapshot;
pub mod usage;
pub mod usage_by_term;
pub mod usage_statement;

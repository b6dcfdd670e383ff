//! The organization aggregate and its value types. No I/O.

mod email;
mod member_role;
mod name;
mod organization;

pub use email::{Email, EmailError};
pub use member_role::{MemberRole, UnknownRole};
pub use name::{Name, NameError};
pub use organization::{MAX_MEMBERS, Organization, OrganizationCommand, OrganizationError};

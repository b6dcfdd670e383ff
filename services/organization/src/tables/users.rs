//! The table `users`.
//!
//! An e-mail address belongs to one user, in any spelling. A person may be added to several organizations at the same
//! moment; the unique index decides, and both commands use the same row. The row commits with the event that first
//! names the user, so every member has one.

use epoch::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Email, Name};

/// The update changes nothing. It makes `returning` return the existing row, even one that a concurrent transaction
/// inserted.
const REGISTER: &str = "insert into users (id, email, name, created_at) values ($1, $2, $3, $4) \
     on conflict (lower(email)) do update set email = users.email returning id";

/// E-mail address and name of a person to register.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) email: Email,
    pub(crate) name: Name,
}

/// Returns the id of the user with this address, and inserts the user if there is none. An existing user keeps the
/// name.
pub(crate) async fn register(
    connection: &mut PgConnection,
    person: &Person,
    now: Timestamp,
) -> Result<Uuid, sqlx::Error> {
    sqlx::query_scalar(REGISTER)
        .bind(Uuid::now_v7())
        .bind(person.email.as_str())
        .bind(person.name.as_str())
        .bind(now.as_millis())
        .fetch_one(connection)
        .await
}

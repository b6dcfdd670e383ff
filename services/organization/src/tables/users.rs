//! People.
//!
//! The problem: the same person is added to several organizations, perhaps at the same moment.
//!
//! The invariant: an e-mail address, in whatever case, belongs to one user. A user's row commits with the event that first
//! names the user, so every member of every organization has one.

use epoch::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::{Email, Name};

/// Updates nothing: it makes the row that is there come back, also when another transaction has just made it.
const REGISTER: &str = "insert into users (id, email, name, created_at) values ($1, $2, $3, $4) \
     on conflict (lower(email)) do update set email = users.email returning id";

/// A person, as somebody else names them.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) email: Email,
    pub(crate) name: Name,
}

/// The user with this address; a new one when there is none. Who is known keeps their name.
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

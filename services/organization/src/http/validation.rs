//! Validation of request fields, with a JSON pointer to the invalid one.

use http_kit::Problem;

use crate::{
    domain::{Email, Name},
    tables::users::Person,
};

/// Parses the name at `pointer` in the request body.
///
/// # Errors
/// 422 with the pointer when the name is invalid.
pub(super) fn parse_name(text: &str, pointer: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|error| invalid_field(&error, pointer))
}

/// Parses the e-mail address and the name of the person object at `pointer` in the request body.
///
/// # Errors
/// 422 with the pointer of the first invalid field.
pub(super) fn parse_person(email: &str, name: &str, pointer: &str) -> Result<Person, Problem> {
    let email = Email::parse(email).map_err(|error| invalid_field(&error, &format!("{pointer}/email")))?;
    let name = parse_name(name, &format!("{pointer}/name"))?;
    Ok(Person { email, name })
}

fn invalid_field(error: &dyn std::error::Error, pointer: &str) -> Problem {
    let detail = error.to_string();
    Problem::unprocessable(detail.clone()).at(pointer, detail)
}

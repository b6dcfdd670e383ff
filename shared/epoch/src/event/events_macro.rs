//! The macro that makes an event type from its schemas and its past.
//!
//! The problem: naming each event, finding its schema, choosing the writer's schema again on reading, and turning what events
//! once were into what they are is the same code for every event type, and a slip in it is only seen years later.
//!
//! The invariant: what is in a store can be read or is an error. The stored name and the writer's schema together choose the
//! reader; a name or schema that isn't listed, a future one above all, is never guessed and never skipped.

/// Makes an enum of events out of structs and their Avro schemas.
///
/// ```
/// use epoch::DomainEvent;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// struct MoneyDeposited {
///     cents: i64,
///     note: Option<String>,
/// }
///
/// const TODAY: &str = r#"{"type": "record", "name": "MoneyDeposited", "fields": [
///     {"name": "cents", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": null}]}"#;
/// const BEFORE: &str = r#"{"type": "record", "name": "MoneyDeposited", "fields": [{"name": "cents", "type": "long"}]}"#;
///
/// epoch::events! {
///     /// What happens to an account.
///     enum AccountEvent { MoneyDeposited = [TODAY, BEFORE] }
/// }
///
/// let event = AccountEvent::from(MoneyDeposited { cents: 5, note: None });
/// let encoded = event.encode()?;
/// assert_eq!(AccountEvent::decode("MoneyDeposited", encoded.schema, &encoded.payload)?, event);
/// # Ok::<(), epoch::event::CodecError>(())
/// ```
///
/// Each name is a struct in scope that implements `Serialize`, `Deserialize`, `Debug`, `Clone` and `PartialEq`; the list has today's
/// schema first, then all earlier ones that Avro's rules resolve to it. The schemas are constants. It expands to
/// - the enum, with one variant a struct, `From<Struct>` for each, and `Serialize` as its structs do;
/// - [`DomainEvent`](crate::event::DomainEvent) for the enum;
/// - [`AvroEvent`](crate::avro::AvroEvent) for each struct, with a codec that is made on first use.
///
/// # What events once were
///
/// An event with another name, whose old schema still resolves to today's, has its former names behind its own:
/// `MoneyDeposited | "MoneyPaidIn" = [TODAY, PAID_IN]`.
///
/// Where Avro's rules don't get from the old schema to today's, a struct of the old shape does, and a function:
///
/// ```
/// # use epoch::DomainEvent;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// # struct MoneyDeposited { cents: i64 }
/// # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// # struct MoneyWithdrawn { cents: i64 }
/// # const DEPOSITED: &str = r#"{"type": "record", "name": "MoneyDeposited", "fields": [{"name": "cents", "type": "long"}]}"#;
/// # const WITHDRAWN: &str = r#"{"type": "record", "name": "MoneyWithdrawn", "fields": [{"name": "cents", "type": "long"}]}"#;
/// # const EUROS: &str = r#"{"type": "record", "name": "MoneyDeposited", "fields": [{"name": "euros", "type": "long"}]}"#;
/// # const CORRECTED: &str = r#"{"type": "record", "name": "Corrected", "fields": [
/// #     {"name": "wrong", "type": "long"}, {"name": "right", "type": "long"}]}"#;
/// # const LOOKED_AT: &str = r#"{"type": "record", "name": "LookedAt", "fields": []}"#;
/// #[derive(Serialize, Deserialize)]
/// #[serde(rename = "MoneyDeposited")]
/// struct DepositedInEuros { euros: i64 }
/// #[derive(Serialize, Deserialize)]
/// struct Corrected { wrong: i64, right: i64 }
/// #[derive(Serialize, Deserialize)]
/// struct LookedAt {}
///
/// epoch::events! {
///     /// What happens to an account.
///     enum AccountEvent { MoneyDeposited = [DEPOSITED], MoneyWithdrawn = [WITHDRAWN] }
///     upcast {
///         "MoneyDeposited" as DepositedInEuros = [EUROS] => |old| MoneyDeposited { cents: old.euros * 100 },
///     }
///     split {
///         "Corrected" as Corrected = [CORRECTED] =>
///             |old| [MoneyWithdrawn { cents: old.wrong }.into(), MoneyDeposited { cents: old.right }.into()],
///         "LookedAt" as LookedAt = [LOOKED_AT] => |_| [],
///     }
/// }
///
/// let stored = epoch::avro::encode(&Corrected { wrong: 7, right: 5 })?;
/// let today = AccountEvent::decode_all("Corrected", stored.schema, &stored.payload)?;
/// assert_eq!(today.as_slice(), [MoneyWithdrawn { cents: 7 }.into(), MoneyDeposited { cents: 5 }.into()]);
/// # Ok::<(), epoch::event::CodecError>(())
/// ```
///
/// - `upcast`: the stored event is one event of today; the function gives anything that is `Into` the enum.
/// - `split`: it is any number of events, in order; the function gives anything that iterates over the enum: an array, an
///   `Option`, a `Vec`. An empty one drops the event.
///
/// On the left is the stored name; the struct implements `Serialize` and `Deserialize`, to serde it has the record's name, and
/// it has its own list of schemas. The functions capture nothing and can't fail. A chain is ordinary code: `|old| Third::from(Second::from(old))`. A schema
/// that today's event can read itself never gets to an upcaster.
///
/// A stored event keeps its one version, whatever it becomes. Whoever reads a type with a `split` reads with `decode_all`;
/// `decode`, which gives exactly one, doesn't compile for it:
///
/// ```compile_fail
/// # use epoch::DomainEvent;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// # struct Opened {}
/// # #[derive(Serialize, Deserialize)]
/// # struct Touched {}
/// # const OPENED: &str = r#"{"type": "record", "name": "Opened", "fields": []}"#;
/// # const TOUCHED: &str = r#"{"type": "record", "name": "Touched", "fields": []}"#;
/// epoch::events! {
///     enum DoorEvent { Opened = [OPENED] }
///     split { "Touched" as Touched = [TOUCHED] => |_| [] }
/// }
/// DoorEvent::decode("Opened", epoch::event::SchemaId::new(1), &[]);
/// ```
#[macro_export]
macro_rules! events {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident {
            $($event:ident $(| $former:literal)* = [$($schema:expr),+ $(,)?]),+ $(,)?
        }
        $(upcast {
            $($one_name:literal as $one:ident = [$($one_schema:expr),+ $(,)?] => $upcast:expr),+ $(,)?
        })?
        $(split {
            $($any_name:literal as $any:ident = [$($any_schema:expr),+ $(,)?] => $split:expr),+ $(,)?
        })?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        $visibility enum $name { $($event($event)),+ }

        impl $crate::avro::serde::Serialize for $name {
            fn serialize<S: $crate::avro::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$event(event) => $crate::avro::serde::Serialize::serialize(event, serializer)),+ }
            }
        }

        $(impl From<$event> for $name {
            fn from(event: $event) -> Self {
                Self::$event(event)
            }
        })+

        impl $crate::event::DomainEvent for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($event)),+];

            const SCHEMAS: &'static [&'static [&'static str]] = &[
                $(&[$($schema),+],)+
                $($(&[$($one_schema),+],)+)?
                $($(&[$($any_schema),+],)+)?
            ];

            const SPLITS: bool = !{
                const SPLIT: &[&str] = &[$($($any_name),+)?];
                SPLIT.is_empty()
            };

            fn name(&self) -> &'static str {
                match self { $(Self::$event(_) => stringify!($event)),+ }
            }

            fn encode(&self) -> Result<$crate::event::Encoded, $crate::event::CodecError> {
                match self { $(Self::$event(event) => $crate::avro::encode(event)),+ }
            }

            fn decode_all(
                name: &str,
                schema: $crate::event::SchemaId,
                payload: &[u8],
            ) -> Result<$crate::event::Decoded<Self>, $crate::event::CodecError> {
                let mut known = true;
                match name {
                    $(stringify!($event) $(| $former)* => {
                        if let Some(event) = $crate::avro::decode_known(schema, payload)? {
                            return Ok($crate::event::Decoded::from_buf([Self::$event(event)]));
                        }
                    })+
                    _ => known = false,
                }
                $($(if name == $one_name {
                    known = true;
                    if let Some(old) = $crate::avro::decode_known(schema, payload)? {
                        let upcast: fn($one) -> _ = $upcast;
                        return Ok($crate::event::Decoded::from_buf([Self::from(upcast(old))]));
                    }
                })+)?
                $($(if name == $any_name {
                    known = true;
                    if let Some(old) = $crate::avro::decode_known(schema, payload)? {
                        let split: fn($any) -> _ = $split;
                        return Ok($crate::event::Decoded::<Self>::from_iter(split(old)));
                    }
                })+)?
                Err(if known {
                    $crate::event::CodecError::UnknownSchema { name: name.to_owned(), schema }
                } else {
                    $crate::event::CodecError::UnknownEvent { name: name.to_owned() }
                })
            }
        }

        $($crate::events!(@codec $event, stringify!($event), [$($schema),+]);)+
        $($($crate::events!(@codec $one, $one_name, [$($one_schema),+]);)+)?
        $($($crate::events!(@codec $any, $any_name, [$($any_schema),+]);)+)?
    };
    (@codec $event:ident, $stored:expr, [$($schema:expr),+]) => {
        impl $crate::avro::AvroEvent for $event {
            fn codec() -> &'static Result<$crate::avro::AvroCodec, $crate::event::CodecError> {
                static CODEC: std::sync::LazyLock<Result<$crate::avro::AvroCodec, $crate::event::CodecError>> =
                    std::sync::LazyLock::new(|| $crate::avro::AvroCodec::new($stored, &[$($schema),+]));
                &CODEC
            }
        }
    };
}

//! The `events!` macro.
//!
//! It generates the code that every event type repeats: names, schemas, codecs, and the conversion of earlier events.
//! The stored name and the writer's schema together select the decoder. An unlisted name or schema, such as one from a
//! newer release, is an error; it is never guessed and never skipped.

/// Defines an enum of events from structs and their Avro schemas.
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
/// const CURRENT: &str = r#"{"type": "record", "name": "MoneyDeposited", "fields": [
///     {"name": "cents", "type": "long"}, {"name": "note", "type": ["null", "string"], "default": null}]}"#;
/// const PREVIOUS: &str = r#"{"type": "record", "name": "MoneyDeposited", "fields": [{"name": "cents", "type": "long"}]}"#;
///
/// epoch::events! {
///     /// Events of an account.
///     enum AccountEvent { MoneyDeposited = [CURRENT, PREVIOUS] }
/// }
///
/// let event = AccountEvent::from(MoneyDeposited { cents: 5, note: None });
/// let encoded = event.encode()?;
/// assert_eq!(AccountEvent::decode("MoneyDeposited", encoded.schema, &encoded.payload)?, event);
/// # Ok::<(), epoch::event::CodecError>(())
/// ```
///
/// Each name is a struct in scope that implements `Serialize`, `Deserialize`, `Debug`, `Clone` and `PartialEq`. Its
/// list has the current schema first, then all earlier schemas that Avro's rules resolve to it. Schemas are constants.
/// The macro expands to
/// - the enum, with one variant and one `From<Struct>` per struct, and a `Serialize` that delegates to the struct;
/// - [`DomainEvent`](crate::event::DomainEvent) for the enum;
/// - [`AvroEvent`](crate::avro::AvroEvent) for each struct, with a codec that is created on first use.
///
/// # Schema evolution
///
/// List former names after the current one when the old schema still resolves to the current schema:
/// `MoneyDeposited | "MoneyPaidIn" = [CURRENT, PAID_IN]`.
///
/// Where Avro's rules cannot resolve the old schema, define a struct of the old shape and a conversion:
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
///     /// Events of an account.
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
/// let current = AccountEvent::decode_all("Corrected", stored.schema, &stored.payload)?;
/// assert_eq!(current.as_slice(), [MoneyWithdrawn { cents: 7 }.into(), MoneyDeposited { cents: 5 }.into()]);
/// # Ok::<(), epoch::event::CodecError>(())
/// ```
///
/// - `upcast`: the stored event becomes one current event. The function returns any value that is `Into` the enum.
/// - `split`: the stored event becomes any number of current events, in order. The function returns an iterable of the
///   enum, such as an array, an `Option` or a `Vec`. An empty one drops the event.
///
/// The left side is the stored name. The struct implements `Serialize` and `Deserialize` under the record's name and
/// has its own list of schemas. The functions capture nothing and cannot fail. Chain conversions in ordinary code:
/// `|old| Third::from(Second::from(old))`. An upcaster never sees a schema that the current event lists itself.
///
/// A stored event keeps its one version, also when it is split. Decode a type with a `split` by `decode_all`; `decode`,
/// which returns exactly one event, does not compile for it:
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

            fn encode(&self) -> Result<$crate::event::EncodedEvent, $crate::event::CodecError> {
                match self { $(Self::$event(event) => $crate::avro::encode(event)),+ }
            }

            fn decode_all(
                name: &str,
                schema: $crate::event::SchemaId,
                payload: &[u8],
            ) -> Result<$crate::event::DecodedEvents<Self>, $crate::event::CodecError> {
                let mut known = true;
                match name {
                    $(stringify!($event) $(| $former)* => {
                        if let Some(event) = $crate::avro::decode_known(schema, payload)? {
                            return Ok($crate::event::DecodedEvents::from_buf([Self::$event(event)]));
                        }
                    })+
                    _ => known = false,
                }
                $($(if name == $one_name {
                    known = true;
                    if let Some(old) = $crate::avro::decode_known(schema, payload)? {
                        let upcast: fn($one) -> _ = $upcast;
                        return Ok($crate::event::DecodedEvents::from_buf([Self::from(upcast(old))]));
                    }
                })+)?
                $($(if name == $any_name {
                    known = true;
                    if let Some(old) = $crate::avro::decode_known(schema, payload)? {
                        let split: fn($any) -> _ = $split;
                        return Ok($crate::event::DecodedEvents::<Self>::from_iter(split(old)));
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

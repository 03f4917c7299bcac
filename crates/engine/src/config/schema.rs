//! The JSON schema of the configuration, for editors that complete and check TOML.

use serde_json::{Map, Value, json};

use super::keys::{BACKUP, CHECK, Key, Kind, PLAN_SNAPSHOT, REPOSITORY, TOP};

/// The schema, in draft 7, which the editors' TOML servers understand.
pub fn schema() -> Value {
    let tables = TOP.iter().map(|key| (key.name.to_owned(), property(key)));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Snapback",
        "description": "What is protected, when, and where backups go (snapback.toml)",
        "type": "object",
        "additionalProperties": false,
        "properties": tables.collect::<Map<_, _>>(),
    })
}

const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";
const PATH: &str = "^(/|~$|~/)";
const DURATION: &str = r"^\s*([0-9]+\s*(s|sec|m|min|h|d|w)\s*)+$";
const SPAN: &str = "^([0-9]+[ymdh])+$";
const RATE: &str = r"^[0-9]+(\.[0-9]+)?\s*([kKmMgG][iI]?)?([bB]|[bB][iI][tT])?/[sS]$";
const PERCENTAGE: &str = r"^\s*[0-9]+(\.[0-9]+)?\s*%\s*$";
const TIME: &str = r"^([A-Za-z,\- ]+\s)?([01]?[0-9]|2[0-3]):[0-5][0-9]$";

fn table(keys: &'static [Key]) -> Value {
    let properties = keys.iter().map(|key| (key.name.to_owned(), property(key)));
    let required: Vec<&str> = keys.iter().filter(|key| key.is_required).map(|key| key.name).collect();
    let mut table = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties.collect::<Map<_, _>>(),
        "required": required,
    });
    let one_of = |names: &[&str]| names.iter().map(|name| json!({ "required": [name] })).collect::<Vec<_>>();
    let is = |other: &'static [Key]| std::ptr::eq(keys, other);
    if is(&REPOSITORY) {
        table["oneOf"] = one_of(&super::decode::PASSWORDS).into();
    } else if is(&BACKUP) || is(&PLAN_SNAPSHOT) || is(&CHECK) {
        table["oneOf"] = one_of(&["at", "every"]).into();
    }
    table
}

fn property(key: &Key) -> Value {
    let mut property = match key.kind {
        Kind::Table(keys) => table(keys),
        kind => value(kind),
    };
    property["description"] = key.help.into();
    let literal = |text: &str| serde_json::from_str::<Value>(text).ok();
    if let Some(default) = literal(key.default) {
        property["default"] = default;
    }
    if let Some(example) = literal(key.example) {
        property["examples"] = json!([example]);
    }
    property
}

fn value(kind: Kind) -> Value {
    let text = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    let filled = || text(r"\S");
    let list = |items: Value| json!({ "type": "array", "items": items });
    let one_or_more = |items: Value| json!({ "anyOf": [items, { "type": "array", "items": items, "minItems": 1 }] });
    match kind {
        Kind::Text => filled(),
        Kind::Path => text(PATH),
        Kind::Texts => list(filled()),
        Kind::Paths => list(text(PATH)),
        Kind::Commands => one_or_more(filled()),
        Kind::Times => one_or_more(text(TIME)),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Count(least) => json!({ "type": "integer", "minimum": least, "maximum": u32::MAX }),
        Kind::KeepCount => {
            json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": u32::MAX }, { "enum": ["all", "unlimited"] }] })
        }
        Kind::Duration => text(DURATION),
        Kind::Span => text(SPAN),
        Kind::Rate => text(RATE),
        Kind::Percentage => text(PERCENTAGE),
        Kind::Table(keys) => table(keys),
        Kind::Named(keys) => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": table(keys),
        }),
    }
}

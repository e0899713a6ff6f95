//! The configuration file: YAML, or JSON as a part of it. Keys are the flags' names, some of them
//! in sections; unknown keys are ignored, as etcd ignores them.

use serde_yaml_ng::Value as Yaml;

use super::error::Error;
use super::flags::{FLAGS, FileKey, Flag, Kind, Value};
use super::gates;
use super::raw::RawConfig;
use super::urls::parse_urls;
use super::value::GoDuration;

/// Reads the text of a file.
///
/// # Errors
/// Text that is no YAML, a value of the wrong type, a bad URL or feature gate.
pub(super) fn parse(text: &str) -> Result<RawConfig, Error> {
    let document: Yaml = serde_yaml_ng::from_str(text)
        .map_err(|error| Error::File(format!("error converting YAML to JSON: yaml: {error}")))?;
    let mut raw = RawConfig::default();
    if document.is_null() {
        return Ok(raw);
    }
    if !document.is_mapping() {
        return Err(mismatch(&document, "", "embed.configYAML"));
    }
    if let Some(section) = entry(&document, "peer-transport-security")
        && !section.is_mapping()
    {
        return Err(Error::File("invalid peer-transport-security".to_owned()));
    }
    for flag in FLAGS {
        if let Some(found) = lookup(&document, flag)?
            && let Some(value) = convert(flag, found)?
        {
            raw.set(flag, value);
        }
    }
    Ok(raw)
}

/// The value at a flag's key.
fn lookup<'a>(document: &'a Yaml, flag: &Flag) -> Result<Option<&'a Yaml>, Error> {
    let same = [flag.name];
    let path = match flag.file {
        FileKey::Same => &same[..],
        FileKey::At(path) => path,
        FileKey::None => return Ok(None),
    };
    let mut value = document;
    for (depth, key) in path.iter().enumerate() {
        if value.is_null() {
            return Ok(None);
        }
        if !value.is_mapping() {
            return Err(mismatch(value, &path[..depth].join("."), "struct"));
        }
        match entry(value, key) {
            Some(inner) => value = inner,
            None => return Ok(None),
        }
    }
    Ok((!value.is_null()).then_some(value))
}

/// The entry of a mapping whose key is `key` in any case; of several, the last in byte order, as
/// in Go's detour over sorted JSON.
fn entry<'a>(mapping: &'a Yaml, key: &str) -> Option<&'a Yaml> {
    mapping
        .as_mapping()?
        .iter()
        .filter_map(|(name, value)| Some((name.as_str()?, value)))
        .filter(|(name, _)| name.eq_ignore_ascii_case(key))
        .max_by_key(|(name, _)| *name)
        .map(|(_, value)| value)
}

/// The value in the type of the flag; `None` where the empty text means "as before".
fn convert(flag: &Flag, found: &Yaml) -> Result<Option<Value>, Error> {
    let wrong = |go_type: &str| mismatch(found, flag.name, go_type);
    let value = match flag.kind {
        Kind::Bool => Value::Bool(boolean(found).ok_or_else(|| wrong("bool"))?),
        Kind::Uint => Value::Uint(found.as_u64().ok_or_else(|| wrong("uint"))?),
        Kind::Uint32 => Value::Uint(
            found
                .as_u64()
                .filter(|v| *v <= u64::from(u32::MAX))
                .ok_or_else(|| wrong("uint32"))?,
        ),
        Kind::Int => Value::Int(found.as_i64().ok_or_else(|| wrong("int64"))?),
        Kind::Duration => Value::Duration(GoDuration::from_nanos(
            found.as_i64().ok_or_else(|| wrong("time.Duration"))?,
        )),
        Kind::Urls | Kind::Cors => {
            let text = scalar(found).ok_or_else(|| wrong("string"))?;
            if text.is_empty() {
                return Ok(None);
            }
            let parsed = match flag.kind {
                Kind::Cors => flag.kind.parse(&text),
                _ => parse_urls(&text).map(Value::Urls),
            };
            parsed.map_err(|reason| Error::FileUrls {
                // etcd names another flag here.
                key: match flag.name {
                    "advertise-client-urls" => "advertise-peer-urls",
                    name => name,
                },
                reason,
            })?
        }
        Kind::Gates => {
            let text = scalar(found).ok_or_else(|| wrong("string"))?;
            gates::parse(&text).map_err(Error::File)?;
            Value::Text(text)
        }
        // Choices are not checked here: the rules are, later.
        Kind::Text | Kind::Choice(_) | Kind::Ignored => {
            Value::Text(scalar(found).ok_or_else(|| wrong("string"))?)
        }
        Kind::UniqueStrings | Kind::Strings | Kind::Choices(_) => Value::List(match found {
            Yaml::Sequence(items) => items
                .iter()
                .map(scalar)
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| wrong("string"))?,
            _ => match scalar(found).ok_or_else(|| wrong("[]string"))? {
                text if text.is_empty() => return Ok(None),
                text => text.split(',').map(str::to_owned).collect(),
            },
        }),
    };
    // An empty state means the default one.
    if flag.name == "initial-cluster-state" && value == Value::Text(String::new()) {
        return Ok(None);
    }
    Ok(Some(value))
}

/// A boolean by the words of YAML 1.1, too, which etcd's files may have.
fn boolean(value: &Yaml) -> Option<bool> {
    match value {
        Yaml::String(word) => match word.as_str() {
            "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
            "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
            _ => None,
        },
        value => value.as_bool(),
    }
}

/// A scalar as text: `name: 1` is the name "1".
fn scalar(value: &Yaml) -> Option<String> {
    match value {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Number(number) => Some(number.to_string()),
        Yaml::Bool(value) => Some(value.to_string()),
        _ => None,
    }
}

fn mismatch(found: &Yaml, key: &str, go_type: &str) -> Error {
    let kind = match found {
        Yaml::Null => "null",
        Yaml::Bool(_) => "bool",
        Yaml::Number(_) => "number",
        Yaml::String(_) => "string",
        Yaml::Sequence(_) => "array",
        Yaml::Mapping(_) | Yaml::Tagged(_) => "object",
    };
    let place = match key {
        "" => "Go value".to_owned(),
        key => format!("Go struct field configYAML.{key}"),
    };
    Error::File(format!(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {kind} into {place} of type {go_type}"
    ))
}

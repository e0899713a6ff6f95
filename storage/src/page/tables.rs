//! The tables as redb knows them.

use redb::{ReadTransaction, TableDefinition, TableError};

use super::batch::Table;
use super::error::Error;
use super::meta::Meta;
use super::row::{self, KEY_BYTES};

/// The table of rows.
pub(super) const ROWS: TableDefinition<'static, [u8; KEY_BYTES], &[u8]> =
    TableDefinition::new(row::REVISIONS);

/// The name of the table that holds the meta record.
pub(super) const META_NAME: &str = "meta";

/// The table that holds the meta record, and its key there.
pub(super) const META: Small = TableDefinition::new(META_NAME);
pub(super) const META_KEY: &[u8] = b"meta";

/// A table of small rows: the value is the CRC-32C of key and payload, then the payload.
pub(super) type Small = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(super) fn small(table: Table) -> Small {
    TableDefinition::new(table.name())
}

/// The meta record that a transaction sees.
pub(super) fn load_meta(transaction: &ReadTransaction) -> Result<Meta, Error> {
    let corrupt = |what: String| Error::corrupt(META_NAME, what);
    let table = match transaction.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => return Err(corrupt("there is no table".into())),
        table => table?,
    };
    let value = table
        .get(META_KEY)?
        .ok_or_else(|| corrupt("there is no record".into()))?;
    let (_, record) = row::decode_value(META_KEY, value.value()).map_err(corrupt)?;
    Meta::decode(record).map_err(corrupt)
}

/// A key of a small table in errors.
pub(super) fn describe(key: &[u8]) -> String {
    format!("key \"{}\"", key.escape_ascii())
}

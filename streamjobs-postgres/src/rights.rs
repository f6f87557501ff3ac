//! The rights of the role on the tables, checked before a handle exists.

use sqlx::PgPool;

use crate::migrate::SchemaError;
use crate::schema::SchemaName;
use crate::statement;

/// What the role of a pool may do in a schema that exists.
#[derive(Debug)]
pub(crate) struct Rights {
    schema: SchemaName,
    /// The role's name, with quotes if SQL needs them.
    role: String,
    /// Whether it has `USAGE` on the schema.
    usage: bool,
    tables: Vec<TableRights>,
}

#[derive(Debug)]
struct TableRights {
    name: String,
    missing: Vec<String>,
    row_security: bool,
}

impl Rights {
    /// The rights of the pool's role; `None` if there is no such schema.
    pub(crate) async fn load(
        pool: &PgPool,
        schema: &SchemaName,
    ) -> Result<Option<Self>, SchemaError> {
        let loaded = async {
            let mut reading = statement::begin_reading(pool).await?;
            let role = statement::query_as::<(String, bool)>(ROLE).bind(schema.as_str());
            let Some((role, usage)) = role.fetch_optional(&mut *reading).await? else {
                return Ok(None);
            };
            let tables = statement::query_as::<(String, bool, Vec<String>)>(ON_TABLES);
            let tables = tables.bind(schema.as_str()).fetch_all(&mut *reading).await?;
            let rights =
                |(name, row_security, missing)| TableRights { name, missing, row_security };
            let tables = tables.into_iter().map(rights).collect();
            Ok(Some(Self { schema: schema.clone(), role, usage, tables }))
        };
        loaded.await.map_err(|source| SchemaError::Database { schema: schema.clone(), source })
    }

    /// Whether the history of migrations can be read.
    pub(crate) fn can_read_history(&self) -> Result<(), SchemaError> {
        self.granted(&[(HISTORY, &["SELECT"])])
    }

    /// Checks that the role has every right that this crate needs, and sees all rows.
    pub(crate) fn suffice(&self) -> Result<(), SchemaError> {
        for (table, _) in NEEDED {
            if self.table(table).is_none() {
                let (schema, table) = (self.schema.clone(), (*table).to_owned());
                return Err(SchemaError::NoTable { schema, table });
            }
        }
        self.granted(NEEDED)?;
        let hidden = NEEDED.iter().filter_map(|(table, _)| self.table(table));
        match hidden.filter(|table| table.row_security).map(|table| table.name.clone()).next() {
            None => Ok(()),
            Some(table) => {
                let (schema, role) = (self.schema.clone(), self.role.clone());
                Err(SchemaError::RowSecurity { schema, role, table })
            }
        }
    }

    fn granted(&self, needed: &[Needed]) -> Result<(), SchemaError> {
        let (schema, role) = (&self.schema, &self.role);
        let mut grants = Vec::new();
        if !self.usage {
            grants.push(format!("GRANT USAGE ON SCHEMA {schema} TO {role}"));
        }
        for (table, rights) in needed {
            let Some(found) = self.table(table) else { continue };
            let lacks = |right: &&&str| found.missing.iter().any(|missing| missing == **right);
            let lacking = rights.iter().filter(lacks).copied().collect::<Vec<_>>();
            if !lacking.is_empty() {
                let lacking = lacking.join(", ");
                grants.push(format!("GRANT {lacking} ON {schema}.{table} TO {role}"));
            }
        }
        if grants.is_empty() {
            return Ok(());
        }
        let (schema, role, grants) = (schema.clone(), role.clone(), grants.join("; "));
        Err(SchemaError::Rights { schema, role, grants })
    }

    fn table(&self, name: &str) -> Option<&TableRights> {
        self.tables.iter().find(|table| table.name == name)
    }
}

/// A table, and the rights on it.
type Needed = (&'static str, &'static [&'static str]);

const NEEDED: &[Needed] = &[
    ("once", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("dead_letters", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("redrives", &["SELECT", "INSERT", "UPDATE"]),
    ("redrive_letters", &["SELECT", "INSERT", "UPDATE"]),
    ("outbox", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("batches", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("batch_events", &["SELECT", "INSERT"]),
    ("batch_members", &["SELECT", "INSERT", "UPDATE"]),
];

const HISTORY: &str = "_migrations";

const ROLE: &str = "SELECT quote_ident(current_user::text), has_schema_privilege(oid, 'USAGE')
    FROM pg_catalog.pg_namespace WHERE nspname = $1";

const ON_TABLES: &str =
    "SELECT c.relname::text AS name, row_security_active(c.oid) AS row_security,
        ARRAY(SELECT r.name FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r (name)
              WHERE NOT has_table_privilege(c.oid, r.name)) AS missing
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')";

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(usage: bool, missing: &[&str]) -> Rights {
        let table = |(name, _): &Needed| TableRights {
            name: (*name).to_owned(),
            missing: missing.iter().map(|right| (*right).to_owned()).collect(),
            row_security: false,
        };
        let tables = NEEDED.iter().map(table).collect();
        Rights { schema: SchemaName::new("jobs").unwrap(), role: "shop".to_owned(), usage, tables }
    }

    #[test]
    fn the_error_of_a_missing_right_says_what_to_grant() {
        rights(true, &[]).suffice().unwrap();
        let error = rights(false, &["DELETE"]).suffice().unwrap_err().to_string();
        for grant in ["GRANT USAGE ON SCHEMA jobs TO shop", "GRANT DELETE ON jobs.once TO shop"] {
            assert!(error.contains(grant), "{error}");
        }
        assert!(!error.contains("redrives"), "no row of it is deleted: {error}");
    }

    #[test]
    fn a_table_that_is_gone_and_one_with_row_security_are_named() {
        let mut rights = rights(true, &[]);
        rights.tables[1].row_security = true;
        let error = rights.suffice().unwrap_err().to_string();
        assert!(error.contains("row-level security of jobs.dead_letters applies to role shop"));
        rights.tables.remove(0);
        assert!(
            matches!(rights.suffice(), Err(SchemaError::NoTable { table, .. }) if table == "once")
        );
    }
}

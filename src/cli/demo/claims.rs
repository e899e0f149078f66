//! What the demo claims, each as a query that finds what would contradict it. A claim that fails ends the demo.

use tokio_postgres::Client;

use super::stage::{texts, value};
use crate::cli::{Error, output};

/// The demo's pipeline; its schema is called the same.
pub(super) const DEMO: &str = "demo";
/// The pipeline that meets no reorganisation and no crash, for comparison.
pub(super) const UNDISTURBED: &str = "demo_undisturbed";

/// Scripts whose balance is not the sum of their unspent outputs.
const WRONG_BALANCES: &str = "\
select count(*)
  from (select script_hash, sum(value) as balance
          from demo.outputs where spent_by is null group by script_hash having sum(value) > 0) summed
  full join demo.balances kept using (script_hash)
 where kept.balance is distinct from summed.balance";

/// Heights that are missing, and blocks whose rows are not of the block that debshrew committed there.
const WRONG_BLOCKS: &str = "\
select count(*)
  from debshrew.blocks committed
  full join demo.blocks b on b.height = committed.height
 where committed.pipeline is not distinct from 'demo'
   and encode(b.hash, 'hex') is distinct from committed.block_hash";

/// Blocks for which there are not as many transactions as their header says.
const WRONG_TRANSACTIONS: &str = "\
select count(*)
  from demo.blocks b
 where b.transactions <> (select count(*) from demo.transactions t where t.height = b.height)";

/// A claim that failed.
fn fails(claim: &str, found: &dyn std::fmt::Display) -> Error {
    Error::Claim { claim: claim.to_owned(), found: found.to_string() }
}

/// Says that something holds, or fails.
pub(super) fn hold(claim: &str, holds: Result<(), String>) -> Result<(), Error> {
    holds.map_err(|found| fails(claim, &found))?;
    output::print(&format!("   ok  {claim}"))
}

async fn none(client: &Client, claim: &str, sql: &str) -> Result<(), Error> {
    let found: i64 = value(client, sql).await?;
    hold(claim, if found == 0 { Ok(()) } else { Err(format!("{found} rows contradict it")) })
}

/// The tables are whole and agree with one another.
pub(super) async fn consistent(client: &Client) -> Result<(), Error> {
    none(client, "every committed block has its row, under the hash it was committed with", WRONG_BLOCKS)
        .await?;
    none(client, "each block has as many transactions as it should", WRONG_TRANSACTIONS).await?;
    none(client, "balances equal what plain SQL sums from the unspent outputs", WRONG_BALANCES).await
}

/// No row of a block that was reorganised away is left.
pub(super) async fn gone(client: &Client, hashes: &[String]) -> Result<(), Error> {
    let quoted: Vec<String> = hashes.iter().map(|hash| format!("'{hash}'")).collect();
    let sql =
        format!("select count(*) from demo.blocks where encode(hash, 'hex') in ({})", quoted.join(", "));
    none(client, "nothing of the abandoned blocks is left", &sql).await
}

/// A digest of every table, by name.
async fn digests(client: &Client, schema: &str) -> Result<Vec<Vec<String>>, Error> {
    let names = "select relname::text from pg_class where relkind in ('r', 'p') and relnamespace = $SCHEMA order by 1";
    let names = names.replace("$SCHEMA", &format!("'{schema}'::regnamespace"));
    let mut digests = Vec::new();
    for name in texts(client, &names).await?.into_iter().flatten() {
        let sql = format!(
            "select md5(coalesce(string_agg(t::text, E'\\n' order by t::text), '')) from {schema}.{name} t"
        );
        digests.push(vec![name, value::<String>(client, &sql).await?]);
    }
    Ok(digests)
}

/// The tables equal those of the pipeline that nothing happened to.
pub(super) async fn as_undisturbed(client: &Client) -> Result<(), Error> {
    let (disturbed, undisturbed) = (digests(client, DEMO).await?, digests(client, UNDISTURBED).await?);
    let equal = disturbed == undisturbed && !disturbed.is_empty();
    let claim =
        format!("all {} tables equal, row by row, those of a run that nothing happened to", disturbed.len());
    hold(&claim, if equal { Ok(()) } else { Err(format!("{disturbed:?} against {undisturbed:?}")) })
}

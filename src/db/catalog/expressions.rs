//! What the expressions of the catalog depend on, defaults and triggers' conditions, by the functions that they call.
//!
//! PostgreSQL records dependencies on its own functions nowhere; they are read from the expressions' trees.

use std::collections::BTreeMap;

use tokio_postgres::Row;

/// What an expression's value depends on that other changes of a block could alter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Dependence {
    /// Nothing: it is the same whenever in a transaction it is asked for, or left to chance.
    #[default]
    Nothing,
    /// Which of the next numbers of these sequences it gets.
    Sequences(Vec<u32>),
    /// Whether it is asked for before or after others: the clock, sequences that are not known.
    Turn,
    /// Rows of any table: it calls a function of somebody's that may read or write them.
    Rows,
}

impl Dependence {
    pub(super) fn of(sequences: Vec<u32>) -> Dependence {
        if sequences.is_empty() { Dependence::Turn } else { Dependence::Sequences(sequences) }
    }
}

/// What an expression calls.
#[derive(Debug)]
pub(super) struct Calls {
    /// It may give another value at another time.
    pub(super) varies: bool,
    pub(super) dependence: Dependence,
}

/// The defaults by table and column number, the conditions by trigger.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    pub(super) defaults: BTreeMap<(u32, i16), Calls>,
    pub(super) conditions: BTreeMap<u32, Calls>,
}

impl Expressions {
    pub(super) fn read(rows: &[Row]) -> Expressions {
        let mut found = Expressions::default();
        for row in rows {
            let sequences: Vec<u32> = row.get("sequences");
            let dependence = match (row.get("on_rows"), row.get("on_turn")) {
                (true, _) => Dependence::Rows,
                (_, true) => Dependence::Turn,
                _ if row.get("counts") => Dependence::of(sequences),
                _ => Dependence::Nothing,
            };
            let calls = Calls { varies: row.get("varies"), dependence };
            match row.get::<_, Option<u32>>("table_oid") {
                Some(table) => found.defaults.insert((table, row.get("number")), calls),
                None => found.conditions.insert(row.get("object"), calls),
            };
        }
        found
    }
}

// Functions, operators and, where something is cast by way of its text, types are in a tree by their numbers. Those below
// 16384 are PostgreSQL's own (`FirstNormalObjectId`). An own function that is stable gives the same all through a
// transaction but for what makes XML of tables, and `statement_timestamp()`, which is a clock. Of those that are volatile,
// the ones that are not named here may look at rows. A function of somebody's may, unless it says that it is immutable.
pub(super) const EXPRESSIONS: &str = r"
-- db::catalog::expressions
with trees as (
  select a.attrelid as table_oid, a.attnum as number, coalesce(d.adbin, t.typdefaultbin)::text as tree,
         case when d.oid is null then 'pg_type'::regclass else 'pg_attrdef'::regclass end as class,
         coalesce(d.oid, t.oid) as object
    from pg_attribute a
    join pg_class c on c.oid = a.attrelid
    join pg_namespace n on n.oid = c.relnamespace
    join pg_type t on t.oid = a.atttypid
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
   where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition and a.attnum > 0 and a.attgenerated = ''
     and coalesce(d.adbin, t.typdefaultbin) is not null
   union all
  select null, null, g.tgqual::text, 'pg_trigger'::regclass, g.oid
    from pg_trigger g
    join pg_class c on c.oid = g.tgrelid
    join pg_namespace n on n.oid = c.relnamespace
   where (n.nspname = $1 or c.relispartition) and g.tgqual is not null
), calls as (
  select t.class, t.object, t.table_oid, t.number, p.provolatile as volatility, p.oid < 16384 as is_own, p.proname as name
    from trees t
   cross join lateral (
           select m[1]::oid from regexp_matches(t.tree, ':funcid (\d+)', 'g') m
            union all
           select o.oprcode from regexp_matches(t.tree, ':opno (\d+)', 'g') m join pg_operator o on o.oid = m[1]::oid
            union all
           select o.oprcode
             from regexp_matches(t.tree, ':opnos \(o ([\d ]+)\)', 'g') m
            cross join unnest(string_to_array(m[1], ' ')::oid[]) u (number)
             join pg_operator o on o.oid = u.number
            union all
           select unnest(array[y.typinput, y.typoutput])::oid
             from regexp_matches(t.tree, '(?:type|typeid) (\d+)', 'g') m
             join pg_type y on y.oid = m[1]::oid
            where t.tree like '%{COERCEVIAIO%'
         ) f (oid)
    join pg_proc p on p.oid = f.oid
)
select t.table_oid, t.number, t.object, s.sequences,
       t.tree like '%{SQLVALUEFUNCTION%' or coalesce(c.varies, false) as varies,
       coalesce(c.counts, false) as counts,
       -- Every sequence is known if each `nextval` has a constant.
       coalesce(c.on_turn, false)
         or (coalesce(c.counts, false)
             and (select count(*) from regexp_matches(t.tree, ':funcid 1574 ', 'g'))
              <> (select count(*) from regexp_matches(t.tree, ':funcid 1574 [^{}]*:args \(\{CONST ', 'g'))) as on_turn,
       coalesce(c.on_rows, false) as on_rows
  from trees t
 cross join lateral (
         select array(select q.oid from pg_depend d join pg_class q on q.oid = d.refobjid and q.relkind = 'S'
                       where d.classid = t.class and d.objid = t.object and d.refclassid = 'pg_class'::regclass) as sequences
       ) s
  left join lateral (
         select bool_or(c.volatility <> 'i') as varies,
                bool_or(c.is_own and c.name = 'nextval') as counts,
                bool_or(c.is_own and c.name in ('setval', 'currval', 'lastval', 'clock_timestamp', 'timeofday', 'uuidv7'))
                  as on_turn,
                bool_or(case when not c.is_own then c.volatility <> 'i'
                             when c.volatility = 'v' then c.name not in ('nextval', 'setval', 'currval', 'lastval',
                               'clock_timestamp', 'timeofday', 'uuidv7', 'random', 'random_normal', 'gen_random_uuid', 'uuidv4')
                             else c.name like '%\_to\_xml%' end) as on_rows
           from calls c
          where c.class = t.class and c.object = t.object
            and c.table_oid is not distinct from t.table_oid and c.number is not distinct from t.number
       ) c on true";

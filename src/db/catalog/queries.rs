//! The queries that read the catalog. They run with an empty `search_path`.

pub(super) const RELATIONS: &str = "\
-- db::catalog::relations
select c.oid, c.relname::text as name, c.relkind = 'p' as partitioned, p.members,
       array(select g.oid from pg_trigger g where g.tgrelid = any(p.members) and g.tgenabled <> 'D') as trigger_oids,
       exists (select from pg_class m where m.oid = any(p.members) and m.relpersistence = 'u') as unlogged,
       (c.relkind = 'r' and exists (select from pg_inherits i where i.inhparent = c.oid))
         or exists (select from pg_inherits i where i.inhrelid = c.oid) as inherits,
       exists (select from pg_rewrite r where r.ev_class = any(p.members)) as has_rules,
       row_security_active(c.oid) as row_security,
       coalesce((select not i.indimmediate from pg_index i where i.indrelid = c.oid and i.indisprimary), false)
         as key_deferrable,
       coalesce((select i.indisexclusion from pg_index i where i.indrelid = c.oid and i.indisprimary), false)
         as key_temporal,
       u.name as immediate_unique, coalesce(u.is_special, false) as immediate_unique_special
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 cross join lateral (
         -- A partition may have indexes, rules and a persistence of its own.
         select array(select c.oid union select relid::oid from pg_partition_tree(c.oid)) as members
       ) p
  left join lateral (
         select k.relname::text as name, not i.indisexclusion and (i.indexprs is not null or i.indpred is not null) as is_special
           from pg_index i join pg_class k on k.oid = i.indexrelid
          where i.indrelid = any(p.members) and (i.indisunique or i.indisexclusion)
            and not i.indisprimary and i.indimmediate
          order by 1
          limit 1
       ) u on true
 where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'";

pub(super) const COLUMNS: &str = "\
-- db::catalog::columns
select a.attrelid as table_oid, a.attnum as number, a.attname::text as name, a.atttypid as type_oid,
       a.atttypmod as modifier, format_type(a.atttypid, a.atttypmod) as declared, a.attnotnull as not_null,
       a.attgenerated <> '' as generated, a.attidentity <> '' as identity, a.attidentity = 'a' as identity_always,
       array(select d.objid from pg_depend d
              where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = a.attrelid
                and d.refobjsubid = a.attnum and d.deptype = 'i' and a.attidentity <> '') as identity_sequences,
       case when a.attgenerated = '' then coalesce(pg_get_expr(d.adbin, d.adrelid), t.typdefault) end as default_text,
       -- Partitions store the rows of a partitioned table.
       (select quote_literal((m.attmissingval::text::text[])[1])
          from pg_attribute m
         where m.attname = a.attname and m.atthasmissing
           and (m.attrelid = a.attrelid
                or (c.relkind = 'p' and m.attrelid in (select relid from pg_partition_tree(a.attrelid))))
         limit 1) as missing,
       -- Not the type's own: a domain's collation is that of no cast to its base.
       case when l.collname <> 'default' or l.collnamespace <> 'pg_catalog'::regnamespace
            then quote_ident(ln.nspname) || '.' || quote_ident(l.collname) end as collation,
       coalesce(not l.collisdeterministic, false) as loose_collation
  from pg_attribute a
  join pg_class c on c.oid = a.attrelid
  join pg_namespace n on n.oid = c.relnamespace
  join pg_type t on t.oid = a.atttypid
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  left join pg_collation l on l.oid = a.attcollation
  left join pg_namespace ln on ln.oid = l.collnamespace
 where n.nspname = $1 and c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence <> 't'
   and a.attnum > 0 and not a.attisdropped
 order by a.attrelid, a.attnum";

pub(super) const TYPES: &str = "\
-- db::catalog::types
with recursive needed (oid) as (
  select unnest($1::oid[])
  union
  select part.oid
    from needed n
    join pg_type t on t.oid = n.oid
   cross join lateral (
           select t.typbasetype where t.typtype = 'd'
     union all
           select t.typelem where t.typcategory = 'A'
     union all
           select r.rngsubtype from pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
     union all
           select a.atttypid from pg_attribute a
            where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
   ) part (oid)
)
select t.oid, coalesce((select format('%I.%I[]', en.nspname, e.typname)
                          from pg_type e join pg_namespace en on en.oid = e.typnamespace where e.typarray = t.oid),
                       format('%I.%I', tn.nspname, t.typname)) as sql, t.typtype::text as kind, t.typcategory::text as category,
       t.typelem as element, t.typbasetype as base, t.typdelim::text as delimiter,
       (select r.rngsubtype from pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)) as subtype,
       array(select a.attname::text from pg_attribute a
              where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
              order by a.attnum) as field_names,
       array(select a.atttypid from pg_attribute a
              where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
              order by a.attnum) as field_types
  from needed n join pg_type t on t.oid = n.oid join pg_namespace tn on tn.oid = t.typnamespace";

// Strategy 3 of a B-tree's operator family is equality (PostgreSQL's manual, "B-Tree Indexes").
pub(super) const KEYS: &str = "\
-- db::catalog::keys
select i.indrelid as table_oid, k.number,
       (select 'operator(' || quote_ident(n.nspname) || '.' || o.oprname || ')'
          from pg_opclass f
          join pg_amop m on m.amopfamily = f.opcfamily and m.amopstrategy = 3
                        and m.amoplefttype = f.opcintype and m.amoprighttype = f.opcintype
          join pg_operator o on o.oid = m.amopopr
          join pg_namespace n on n.oid = o.oprnamespace
         where f.oid = (i.indclass::oid[])[k.position - 1]) as equals
  from pg_index i
  join pg_class c on c.oid = i.indrelid
  join pg_namespace s on s.oid = c.relnamespace
 cross join lateral unnest(i.indkey::int2[]) with ordinality k (number, position)
 where s.nspname = $1 and i.indisprimary and k.position <= i.indnkeyatts
 order by i.indrelid, k.position";

pub(super) const FOREIGN_KEYS: &str = "\
-- db::catalog::foreign_keys
select coalesce(pg_partition_root(f.conrelid)::oid, f.conrelid) as table_oid, f.conname::text as name,
       coalesce(pg_partition_root(f.confrelid)::oid, f.confrelid) as references,
       -- `restrict` is checked at once, whatever is declared.
       f.condeferrable and f.confdeltype <> 'r' and f.confupdtype <> 'r' as deferrable,
       array(select a.attname::text from unnest(f.conkey) with ordinality k (number, place)
               join pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.number order by k.place) as columns,
       exists (select from pg_index i
                where i.indrelid = f.conrelid and i.indisvalid and i.indpred is null
                  and (i.indkey::int2[])[0:cardinality(f.conkey) - 1] @> f.conkey) as indexed,
       case when 'c' in (f.confdeltype, f.confupdtype) then 'cascade'
            when 'n' in (f.confdeltype, f.confupdtype) then 'set null'
            when 'd' in (f.confdeltype, f.confupdtype) then 'set default' end as action
  from pg_constraint f
  join pg_class c on c.oid = f.conrelid
  join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = $1 and f.contype = 'f' and f.conparentid = 0
 order by f.conname";

pub(super) const OUTSIDE_KEYS: &str = "\
-- db::catalog::outside_keys
select r.root as table_oid, f.conname::text as name, quote_ident(o.nspname) || '.' || quote_ident(t.relname) as referencing
  from pg_constraint f
 cross join lateral (select coalesce(pg_partition_root(f.confrelid)::oid, f.confrelid) as root) r
  join pg_class c on c.oid = r.root
  join pg_namespace n on n.oid = c.relnamespace
  join pg_class t on t.oid = f.conrelid
  join pg_namespace o on o.oid = t.relnamespace
 where n.nspname = $1 and o.nspname <> $1 and f.contype = 'f' and f.conparentid = 0
 order by o.nspname, t.relname, f.conname";

// Bits of a trigger's type (pg_trigger.h): 1 for each row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate.
pub(super) const TRIGGERS: &str = "\
-- db::catalog::triggers
select distinct on (r.root, t.tgname, p.oid, t.tgtype, t.tgqual::text) r.root as table_oid, t.oid, t.tgname::text as name,
       p.proname::text as function_name, p.prosrc as source, t.tgtype & 2 <> 0 as before, t.tgtype & 1 <> 0 as for_rows,
       t.tgtype & (4 + 8 + 16) = 0 as for_truncate,
       t.tgtype & (4 + 16) <> 0 as for_puts, p.oid < 16384 as own_function, l.lanname::text as language,
       array(select f.proname::text from pg_proc f
              where f.proname = any (regexp_split_to_array(lower(p.prosrc), '[^a-z0-9_]+'))
              group by f.proname
             having bool_and(f.oid < 16384 and f.proname not like '%\\_to\\_xml%'
                             and (f.provolatile <> 'v' or f.proname in ('random', 'random_normal', 'gen_random_uuid', 'uuidv4'))))
         as plain_calls,
       exists (select from pg_proc f join pg_language k on k.oid = f.prolang
                where f.oid >= 16384 and f.provolatile <> 'i' and k.lanname not in ('internal', 'c')
                  and (f.oid in (select o.oprcode from pg_operator o) or f.oid in (select k.castfunc from pg_cast k)))
         as odd_operators
  from pg_trigger t
 cross join lateral (select coalesce(pg_partition_root(t.tgrelid)::oid, t.tgrelid) as root) r
  join pg_class c on c.oid = r.root
  join pg_namespace n on n.oid = c.relnamespace
  join pg_proc p on p.oid = t.tgfoid
  join pg_language l on l.oid = p.prolang
 where n.nspname = $1 and not t.tgisinternal and t.tgenabled <> 'D'
 order by r.root, t.tgname, p.oid, t.tgtype, t.tgqual::text";

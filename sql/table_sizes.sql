-- What each pipeline takes on the disk. Whoever has a table's lock for a change of its definition is waited for.
create or replace view debshrew.table_sizes as
select p.name as pipeline,
       t.table_name,
       of_table.rows as rows_estimated,
       coalesce(of_table.bytes, 0) as table_bytes,
       coalesce(of_journal.bytes, 0) as journal_bytes
  from debshrew.pipeline p
  join debshrew.journal_table t on t.pipeline_id = p.pipeline_id
  -- What the transform keeps for itself is a table among the journals, where its own journal has another name.
 cross join lateral (
         select case t.table_name when 'debshrew_state' then 'debshrew_' || p.name else p.schema_name end as schema,
                case t.table_name when 'debshrew_state' then 'debshrew_state_journal' else t.table_name end as journal
       ) place
 cross join lateral (
         -- A partitioned table's rows are in its partitions.
         select (sum(c.reltuples) filter (where c.relkind = 'r' and c.reltuples >= 0))::int8 as rows,
                sum(pg_catalog.pg_total_relation_size(c.oid))::int8 as bytes
           from pg_catalog.pg_class top
           join pg_catalog.pg_namespace n on n.oid = top.relnamespace
          cross join lateral (
                  select top.oid union select s.relid::oid from pg_catalog.pg_partition_tree(top.oid::regclass) s
                ) member
           join pg_catalog.pg_class c on c.oid = member.oid
          where n.nspname = place.schema and top.relname = t.table_name and top.relkind in ('r', 'p')
       ) of_table
 cross join lateral (
         select sum(pg_catalog.pg_total_relation_size(c.oid))::int8 as bytes
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
          where n.nspname = 'debshrew_' || p.name and c.relname = place.journal and c.relkind = 'r'
       ) of_journal;

comment on view debshrew.table_sizes is 'The tables that each pipeline writes: rows, and bytes of the table and its journal.';
comment on column debshrew.table_sizes.pipeline is 'The pipeline that writes it.';
comment on column debshrew.table_sizes.table_name is
  'As it was called when `migrate` ran last; debshrew_state is what the transform keeps for itself.';
comment on column debshrew.table_sizes.rows_estimated is
  'As VACUUM and ANALYZE have counted them last, partitions included; null if they have not.';
comment on column debshrew.table_sizes.table_bytes is 'Of the table, its indexes, its long values and its partitions.';
comment on column debshrew.table_sizes.journal_bytes is
  'Of its journal and that one''s index: what it takes to roll blocks back.';

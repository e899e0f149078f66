-- One row per pipeline: how far it is, how far behind, and how it fares.
create or replace view debshrew.pipelines as
select p.name as pipeline,
       p.schema_name as schema,
       c.height,
       encode(c.hash, 'hex') as block_hash,
       a.source_height,
       greatest(a.source_height - coalesce(c.height, p.start_height - 1), 0) as lag_blocks,
       -- A process that was killed cannot say so; its lock is gone, though. A lock that another session holds says nothing.
       case when a.state in ('running', 'waiting') and not l.held then 'stopped' else a.state end as state,
       a.reason as last_error,
       a.reason_height as last_error_height,
       a.since,
       b.committed_at as last_block_at,
       c.journal_floor as rollback_floor,
       p.start_height
  from debshrew.pipeline p
  join debshrew.checkpoint c on c.pipeline_id = p.pipeline_id
  join debshrew.activity a on a.pipeline_id = p.pipeline_id
  left join debshrew.block b on b.pipeline_id = p.pipeline_id and b.height = c.height
 cross join lateral (
         select exists (
                  select from pg_catalog.pg_locks k
                   where k.locktype = 'advisory' and k.granted and k.objsubid = 2
                     -- The space of debshrew's locks: "dbsh" as a number.
                     and k.classid = 1684173672 and k.objid = p.pipeline_id::oid
                     and k.pid = a.writer_pid
                     and k.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
                ) as held
       ) l;

comment on view debshrew.pipelines is 'Pipelines: height, lag, state and last error.';
comment on column debshrew.pipelines.height is 'The last committed block; null before the first.';
comment on column debshrew.pipelines.block_hash is 'In the order that Bitcoin shows.';
comment on column debshrew.pipelines.source_height is 'The source''s tip when the pipeline last looked.';
comment on column debshrew.pipelines.lag_blocks is 'Blocks between the last committed one and the source''s tip.';
comment on column debshrew.pipelines.state is
  'new: never run; running; waiting: until something outside changes, see last_error; halted: at a block that cannot be applied, see last_error; stopped.';
comment on column debshrew.pipelines.last_error is 'Why it is halted or waiting.';
comment on column debshrew.pipelines.last_error_height is 'The block that last_error is about.';
comment on column debshrew.pipelines.rollback_floor is
  'The lowest height that can be rolled back to; null when everything can be rolled back.';

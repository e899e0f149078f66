-- One row per pipeline: how far it is, how far behind, and how it fares. Cheap enough to be polled: what it takes does not
-- grow with the block log.
create or replace view debshrew.pipelines as
select p.name as pipeline,
       p.schema_name as schema,
       c.height,
       pg_catalog.encode(c.hash, 'hex') as block_hash,
       a.source_height,
       greatest(a.source_height - coalesce(c.height, p.start_height - 1), 0) as lag_blocks,
       -- A process that was killed cannot say so; its lock is gone, though. A lock that another session holds says nothing.
       case when a.state in ('running', 'waiting') and not l.held then 'stopped' else a.state end as state,
       a.reason as last_error,
       a.reason_height as last_error_height,
       a.since,
       b.committed_at as last_block_at,
       c.journal_floor as rollback_floor,
       p.start_height,
       -- Clocks may be set back. (And `greatest` takes null for less than 0.)
       case when age.block < 0 then 0 else age.block end as block_age_seconds,
       a.source_seen_at,
       case when age.source < 0 then 0 else age.source end as source_age_seconds,
       case when age.state < 0 then 0 else age.state end as state_age_seconds,
       rate.blocks / rate.seconds as blocks_per_second,
       rate.changes / rate.seconds as changes_per_second
  from debshrew.pipeline p
  join debshrew.checkpoint c on c.pipeline_id = p.pipeline_id
  join debshrew.activity a on a.pipeline_id = p.pipeline_id
  left join debshrew.block b on b.pipeline_id = p.pipeline_id and b.height = c.height
 cross join lateral (
         select exists (
                  select from pg_catalog.pg_locks k
                   where k.locktype = 'advisory' and k.granted and k.objsubid = 2
                     -- The spaces of debshrew's locks: "dbsh" as a number; and "dbsb", which a writer shares while it pauses.
                     and k.classid in (1684173672, 1684173666) and k.objid = p.pipeline_id::oid
                     and k.pid = a.writer_pid
                     and k.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
                ) as held
       ) l
 cross join lateral (
         select extract(epoch from pg_catalog.statement_timestamp() - b.committed_at)::float8 as block,
                extract(epoch from pg_catalog.statement_timestamp() - a.source_seen_at)::float8 as source,
                extract(epoch from pg_catalog.statement_timestamp() - a.since)::float8 as state
       ) age
 cross join lateral (
         -- How many blocks to look back: as few as reach beyond the minutes that count, and 1,000 at most.
         select coalesce(min(s.step), 1000) as blocks
           from (values (10), (100)) s (step)
           join debshrew.block o on o.pipeline_id = p.pipeline_id and o.height = c.height - s.step
          where o.committed_at < pg_catalog.statement_timestamp() - interval '5 minutes'
       ) back
 cross join lateral (
         select count(*)::float8 as blocks,
                coalesce(sum(o.changes), 0)::float8 as changes,
                -- All of the minutes, unless there was no room for more blocks.
                greatest(case when count(*) < 1000 then 300
                              else extract(epoch from pg_catalog.statement_timestamp() - min(o.committed_at)) end, 0.001)::float8
                  as seconds
           from debshrew.block o
          where o.pipeline_id = p.pipeline_id and o.height > c.height - back.blocks
            and o.committed_at >= pg_catalog.statement_timestamp() - interval '5 minutes'
       ) rate;

comment on view debshrew.pipelines is 'Pipelines: height, lag, state, ages, rates and last error.';
comment on column debshrew.pipelines.pipeline is 'Its name, from the configuration.';
comment on column debshrew.pipelines.schema is 'Where the transform''s tables are.';
comment on column debshrew.pipelines.height is 'The last committed block; null before the first.';
comment on column debshrew.pipelines.block_hash is 'In the order that Bitcoin shows.';
comment on column debshrew.pipelines.source_height is 'The source''s tip when the pipeline last looked.';
comment on column debshrew.pipelines.lag_blocks is 'Blocks between the last committed one and the source''s tip.';
comment on column debshrew.pipelines.state is
  'new: never run; running; waiting: until something outside changes, see last_error; halted: at a block that cannot be applied, see last_error; stopped.';
comment on column debshrew.pipelines.last_error is 'Why it is halted or waiting.';
comment on column debshrew.pipelines.last_error_height is 'The block that last_error is about.';
comment on column debshrew.pipelines.since is 'When the state began. A process that was killed leaves the time of the state before.';
comment on column debshrew.pipelines.last_block_at is 'When the last block was committed; null before the first.';
comment on column debshrew.pipelines.rollback_floor is
  'The lowest height that can be rolled back to; null when everything can be rolled back.';
comment on column debshrew.pipelines.start_height is 'The first block that is processed.';
comment on column debshrew.pipelines.block_age_seconds is 'Seconds since last_block_at.';
comment on column debshrew.pipelines.source_seen_at is 'When the source''s tip was last looked at, as far as it was noted: every 10 seconds at least.';
comment on column debshrew.pipelines.source_age_seconds is 'Seconds since source_seen_at.';
comment on column debshrew.pipelines.state_age_seconds is 'Seconds since the state began.';
comment on column debshrew.pipelines.blocks_per_second is
  'Over the last five minutes, or the time that the last 1,000 blocks took, if that is shorter.';
comment on column debshrew.pipelines.changes_per_second is 'Rows that those blocks changed, a second.';

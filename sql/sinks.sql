-- One row per sink: how far its stream is, how far behind the checkpoint, and how it fares.
create or replace view debshrew.sinks as
select p.name as pipeline,
       s.name as sink,
       s.kind,
       case when s.stage = 'lost' then 'lost'
            when s.paused then 'paused'
            when s.halted then 'halted'
            when not l.held then 'stopped'
            when s.problem is not null then 'waiting'
            else s.stage end as state,
       u.height,
       pg_catalog.encode(u.hash, 'hex') as block_hash,
       case when s.stage in ('snapshot', 'streaming')
            then coalesce(c.height, p.start_height - 1) - coalesce(u.height, p.start_height - 1) end as lag_blocks,
       case when s.stage in ('snapshot', 'streaming') then
         greatest(coalesce(extract(epoch from pg_catalog.statement_timestamp() - b.committed_at), 0), 0)::float8 end as lag_seconds,
       s.problem as last_error,
       s.problem_since as last_error_since,
       u.events,
       u.moved_at as last_step_at,
       s.generation,
       s.holds_from is not null as holds_journals,
       s.max_lag,
       s.on_lag
  from debshrew.sink s
  join debshrew.sink_cursor u on u.sink_id = s.sink_id
  join debshrew.pipeline p on p.pipeline_id = s.pipeline_id
  join debshrew.checkpoint c on c.pipeline_id = s.pipeline_id
  left join debshrew.block b on b.pipeline_id = s.pipeline_id and b.height = coalesce(u.height + 1, p.start_height)::int8 + s.confirmations
 cross join lateral (
         select exists (
                  select from pg_catalog.pg_locks k
                   where k.locktype = 'advisory' and k.granted and k.objsubid = 2
                     -- The space of the locks of sinks: "dbsk" as a number.
                     and k.classid = 1684173675 and k.objid = s.sink_id::oid
                     and k.pid = u.relay_pid
                     and k.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
                ) as held
       ) l;

comment on view debshrew.sinks is 'One row per sink: how far its stream is, how far behind, and how it fares.';
comment on column debshrew.sinks.pipeline is 'The pipeline''s name.';
comment on column debshrew.sinks.sink is 'The sink''s name in the configuration.';
comment on column debshrew.sinks.kind is '`console`, `file`, `kafka` or `webhook`.';
comment on column debshrew.sinks.state is
  '`new`: not begun; `snapshot`: it is sent all rows; `streaming`; `waiting`: it tries again after a failure; `halted`; `paused`; `lost`: it must begin again; `stopped`: no process runs it.';
comment on column debshrew.sinks.height is 'The last block published; null before the first.';
comment on column debshrew.sinks.block_hash is 'Its hash, as Bitcoin shows it.';
comment on column debshrew.sinks.lag_blocks is 'Committed blocks that are not published, those included that it is to stay behind; null before it begins and when it is lost.';
comment on column debshrew.sinks.lag_seconds is 'How long ago the next block could have been published; 0 when none could.';
comment on column debshrew.sinks.last_error is 'Why it halted, was lost, or what it waits for; null when all is well.';
comment on column debshrew.sinks.last_error_since is 'Since when.';
comment on column debshrew.sinks.events is 'How many events it has published.';
comment on column debshrew.sinks.last_step_at is 'When its cursor moved last.';
comment on column debshrew.sinks.generation is 'How often its stream began again.';
comment on column debshrew.sinks.holds_journals is 'Whether journals are kept for it.';
comment on column debshrew.sinks.max_lag is 'How long it may be behind.';
comment on column debshrew.sinks.on_lag is 'What happens then: `detach` or `block`.';

-- A schema in which everything has the name of something in pg_catalog: functions, operators, types, tables, views and
-- collations. With `search_path = clones, pg_catalog` a name without a schema means one of these, so that a statement
-- parsed under that path tells which of its names have none.
create schema clones;
grant usage on schema clones to public;

create procedure clones.try(statement text) language plpgsql as $$
begin
  execute statement;
exception when others then
  -- Some cannot be made a second time; those that statements use are counted below.
  null;
end
$$;

do $$
declare
  one record;
begin
  for one in
    select format('create function clones.%I(%s) returns %s language internal %s %s as %L', p.proname,
                  (select string_agg(case when p.provariadic <> 0 and a.place = p.pronargs then 'variadic ' else '' end
                                     || format_type(a.type, null), ', ' order by a.place)
                     from unnest(p.proargtypes::oid[]) with ordinality a (type, place)),
                  case when p.proretset then 'setof ' else '' end || format_type(p.prorettype, null),
                  case when p.proisstrict then 'strict' else '' end,
                  case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
                  p.prosrc) as statement
      from pg_proc p join pg_language l on l.oid = p.prolang
     where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind = 'f' and l.lanname = 'internal'
  loop
    call clones.try(one.statement);
  end loop;
  for one in
    select format('create operator clones.%s (%s %s function = %s)', o.oprname,
                  case when o.oprleft <> 0 then 'leftarg = ' || format_type(o.oprleft, null) || ',' end,
                  case when o.oprright <> 0 then 'rightarg = ' || format_type(o.oprright, null) || ',' end,
                  o.oprcode::regproc) as statement
      from pg_operator o where o.oprnamespace = 'pg_catalog'::regnamespace
  loop
    call clones.try(one.statement);
  end loop;
  for one in
    select format('create view clones.%I as table pg_catalog.%I', c.relname, c.relname) as statement
      from pg_class c where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind in ('r', 'v')
  loop
    call clones.try(one.statement);
  end loop;
  for one in
    select format('create domain clones.%I as pg_catalog.%I', t.typname, t.typname) as statement
      from pg_type t
     where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype = 'b' and t.typcategory <> 'A'
  loop
    call clones.try(one.statement);
  end loop;
end
$$;

create aggregate clones.count(*) (sfunc = pg_catalog.int8inc, stype = pg_catalog.int8, initcond = '0');
create aggregate clones.count(pg_catalog."any")
  (sfunc = pg_catalog.int8inc_any, stype = pg_catalog.int8, initcond = '0');
create aggregate clones.bool_or(pg_catalog.bool) (sfunc = pg_catalog.boolor_statefunc, stype = pg_catalog.bool);
create aggregate clones.string_agg(pg_catalog.text, pg_catalog.text)
  (sfunc = pg_catalog.string_agg_transfn, stype = pg_catalog.internal, finalfunc = pg_catalog.string_agg_finalfn);
create aggregate clones.max(pg_catalog.int4) (sfunc = pg_catalog.int4larger, stype = pg_catalog.int4);
create aggregate clones.min(pg_catalog.int4) (sfunc = pg_catalog.int4smaller, stype = pg_catalog.int4);
create aggregate clones.min(pg_catalog.text) (sfunc = pg_catalog.text_smaller, stype = pg_catalog.text);
create aggregate clones.array_agg(pg_catalog.anynonarray)
  (sfunc = pg_catalog.array_agg_transfn, stype = pg_catalog.internal, finalfunc = pg_catalog.array_agg_finalfn,
   finalfunc_extra);
create collation clones."C" from pg_catalog."C";

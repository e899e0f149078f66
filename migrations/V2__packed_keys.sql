-- From here on a journal may hold the keys of rows that did not exist as arrays, many to a row (`undo_absent_1`, …).
-- A program of before would pass over them in a rollback; it refuses a database that has a migration which it does
-- not know, and this is one.

comment on column debshrew.journal_column.in_key is
  'Whether it is in the primary key. Arrays of keys in a journal are numbered in the order of the attribute numbers.';

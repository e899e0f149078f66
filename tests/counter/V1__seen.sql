create table seen (height integer primary key, count integer not null, hash text not null, tracker text not null);

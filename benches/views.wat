;; Asks for two views of each block and writes one row: its height, and how many blocks there have been, which is
;; always 1 without state. The benchmark sets the global `stateful` to 1 for the one that keeps count in its state.
(module
  (import "env" "__height" (func $height (result i32)))
  (import "env" "__view" (func $view (param i32 i32) (result i32)))
  (import "env" "__load" (func $load (param i32)))
  (import "env" "__get_state" (func $get_state (param i32) (result i32)))
  (import "env" "__set_state" (func $set_state (param i32 i32) (result i32)))
  (memory (export "memory") 4)
  (data (i32.const 100) "\0c\00\00\00blocktracker")
  (data (i32.const 120) "\08\00\00\00getblock")
  (data (i32.const 140) "\00\00\00\00")
  (data (i32.const 150) "\05\00\00\00count")
  ;; [{"payload":{"operation":"create","table":"seen","after":{"height":%,"count":%}}}]
  (data (i32.const 200) "[{\22payload\22:{\22operation\22:\22create\22,\22table\22:\22seen\22,\22after\22:{\22height\22:")
  (data (i32.const 300) ",\22count\22:")
  (data (i32.const 320) "}}}]")
  (global $stateful i32 (i32.const 0))
  (global $end (mut i32) (i32.const 1028))

  (func $append (param $from i32) (param $length i32)
    (memory.copy (global.get $end) (local.get $from) (local.get $length))
    (global.set $end (i32.add (global.get $end) (local.get $length))))

  (func $number (param $value i32)
    (if (i32.ge_u (local.get $value) (i32.const 10))
      (then (call $number (i32.div_u (local.get $value) (i32.const 10)))))
    (i32.store8 (global.get $end) (i32.add (i32.const 48) (i32.rem_u (local.get $value) (i32.const 10))))
    (global.set $end (i32.add (global.get $end) (i32.const 1))))

  ;; The answer goes where nothing else is. Gives 1 when the view failed.
  (func $ask (param $name i32) (result i32)
    (if (i32.lt_s (call $view (local.get $name) (i32.const 140)) (i32.const 0)) (then (return (i32.const 1))))
    (call $load (i32.const 65536))
    (i32.const 0))

  (func $count (result i32)
    (local $count i32)
    (if (i32.gt_s (call $get_state (i32.const 150)) (i32.const 0)) (then
      (call $load (i32.const 400))
      (local.set $count (i32.load (i32.const 400)))))
    (local.set $count (i32.add (local.get $count) (i32.const 1)))
    (i32.store (i32.const 410) (i32.const 4))
    (i32.store (i32.const 414) (local.get $count))
    (drop (call $set_state (i32.const 150) (i32.const 410)))
    (local.get $count))

  (func (export "process_block") (result i32)
    (if (call $ask (i32.const 120)) (then (return (i32.const -1))))
    (if (call $ask (i32.const 100)) (then (return (i32.const -1))))
    (call $append (i32.const 200) (i32.const 67))
    (call $number (call $height))
    (call $append (i32.const 300) (i32.const 9))
    (if (global.get $stateful)
      (then (call $number (call $count)))
      (else (call $number (i32.const 1))))
    (call $append (i32.const 320) (i32.const 4))
    (i32.store (i32.const 1024) (i32.sub (global.get $end) (i32.const 1028)))
    (i32.const 1024)))

;; A transform of binary interface version 1, written by hand, that uses each import once the way the interface
;; says: what existing transforms do, in the smallest form.
(module
  (import "env" "__height" (func $height (result i32)))
  (import "env" "__block_hash" (func $block_hash (result i32)))
  (import "env" "__view" (func $view (param i32 i32) (result i32)))
  (import "env" "__load" (func $load (param i32)))
  (import "env" "__get_state" (func $get_state (param i32) (result i32)))
  (import "env" "__set_state" (func $set_state (param i32 i32) (result i32)))
  (import "env" "__delete_state" (func $delete_state (param i32) (result i32)))
  (import "env" "__stdout" (func $stdout (param i32)))
  (import "env" "__stderr" (func $stderr (param i32)))
  (import "env" "__push_cdc_message" (func $push (param i32) (result i32)))
  (memory (export "memory") 1)

  ;; Buffers: a length of four bytes, little-endian, then the bytes.
  (data (i32.const 100) "\08\00\00\00getblock")
  (data (i32.const 120) "\02\00\00\00in")
  (data (i32.const 140) "\04\00\00\00seen")
  (data (i32.const 160) "\04\00\00\00gone")
  (data (i32.const 180) "\05\00\00\00hello")
  (data (i32.const 200) "\04\00\00\00uh \ff")
  (data (i32.const 300) "\8c\00\00\00{\"header\":{\"source\":\"s\",\"timestamp\":0,\"block_height\":1,\"block_hash\":\"00\"},\"payload\":{\"operation\":\"create\",\"table\":\"pushed\",\"after\":{\"a\":1}}}")
  (data (i32.const 600) "\88\00\00\00[{\"header\":{\"source\":\"s\",\"timestamp\":0,\"block_height\":1,\"block_hash\":\"00\"},\"payload\":{\"operation\":\"delete\",\"table\":\"listed\",\"key\":\"k\"}}]")

  ;; Traps unless the two are equal.
  (func $same (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then unreachable)))

  ;; Undoing is the host's; this is never called.
  (func (export "rollback") (result i32) unreachable)

  (func (export "process_block") (result i32)
    (call $same (call $height) (i32.const 840000))
    (call $same (call $block_hash) (i32.const 32))
    (call $load (i32.const 1000))
    (call $same (i32.load8_u (i32.const 1000)) (i32.const 7))
    ;; The view's answer becomes the buffer at 2000.
    (call $same (call $view (i32.const 100) (i32.const 120)) (i32.const 6))
    (i32.store (i32.const 2000) (i32.const 6))
    (call $load (i32.const 2004))
    (call $same (call $get_state (i32.const 140)) (i32.const 3))
    (call $load (i32.const 3000))
    (call $same (i32.load8_u (i32.const 3000)) (i32.const 121))
    (call $same (call $delete_state (i32.const 160)) (i32.const 0))
    (call $same (call $set_state (i32.const 140) (i32.const 2000)) (i32.const 1))
    (call $stdout (i32.const 180))
    (call $stderr (i32.const 200))
    (call $same (call $push (i32.const 300)) (i32.const 0))
    (i32.const 600)))

/* Entry by multiboot: 32-bit protected mode at any address, to 64-bit mode with the first 16 GiB
   mapped as they are. Everything is addressed relative to where the image lies: it is linked at 0,
   and ebp holds the address that the loader was told. */
#include "format.h"
#define PAGES 18
.section .head, "ax"
.code32
.globl image
image:
    .long 0x1BADB002, 0x00010002, -(0x1BADB002 + 0x00010002), 0, 0, 0, 0, 0
    .byte 0xbd                      /* mov $base, %ebp */
    .long 0
    .byte 0xe9                      /* jmp */
    .long begin - (image + 0x2a)
    .org 0xf0
begin:
    cli
    cld
    mov %eax, boot_magic(%ebp)
    mov %ebx, boot_information(%ebp)
    mov 0x30(%ebp), %ebx            /* scratch */
    lea SCRATCH_INTERRUPT_TABLE(%ebx), %esp
    mov %ebx, %edi
    xor %eax, %eax
    mov $(PAGES * 1024), %ecx
    rep stosl
    lea 0x1003(%ebx), %eax
    mov %eax, (%ebx)
    lea 0x2003(%ebx), %eax          /* 16 page directories */
    lea 0x1000(%ebx), %edi
    mov $16, %ecx
1:  mov %eax, (%edi)
    add $0x1000, %eax
    add $8, %edi
    loop 1b
    lea 0x2000(%ebx), %edi
    mov $0x83, %eax                 /* present, writable, 2 MiB */
    xor %edx, %edx
    mov $(16 * 512), %ecx
2:  mov %eax, (%edi)
    mov %edx, 4(%edi)
    add $0x200000, %eax
    adc $0, %edx
    add $8, %edi
    loop 2b
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov %ebx, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000001, %eax
    mov %eax, %cr0
    lea descriptors(%ebp), %eax
    mov %eax, descriptors_at + 2(%ebp)
    lgdt descriptors_at(%ebp)
    push $8
    lea wide(%ebp), %eax
    push %eax
    lret
.code64
wide:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %ebx, %ebx
    lea SCRATCH_INTERRUPT_TABLE(%rbx), %rsp
    call kit
3:  hlt
    jmp 3b

/* 256 entries of 16 bytes: push the vector, and report it. */
.balign 16
.globl interrupt_entries
interrupt_entries:
.set vector, 0
.rept 256
    .balign 16
    push $(vector - 128)            /* sign-extended byte: the same length for all */
    jmp interrupted
    .set vector, vector + 1
.endr
.balign 16
interrupted:
    push %rax
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    mov 72(%rsp), %rdi
    add $128, %rdi
    call interrupt
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rax
    add $8, %rsp
    iretq

.section .data
.balign 8
descriptors:
    .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
descriptors_at:
    .word 23
    .long 0, 0
.balign 8
.globl boot_magic, boot_information
boot_magic: .long 0
boot_information: .long 0
.section .note.GNU-stack, "", @progbits

/* Entry by UEFI firmware, and the way from there to 32 bits, where the payload begins. */
#include "format.h"
.section .head, "ax"
.code64
.globl start
start:
    sub $40, %rsp
    call load
    add $40, %rsp
    ret

/* Copied below 4 GiB and called there with the entry, the information and its own address, when
   paging maps that as it is. It never returns. */
.globl leave, leave_end
leave:
    cli
    mov %ecx, %edi                  /* entry */
    mov %edx, %esi                  /* information */
    mov %r8d, %ebp                  /* where this is */
    lea narrow - leave(%rbp), %eax
    mov %eax, far - leave(%rbp)
    lea table - leave(%rbp), %rax
    mov %rax, table_at - leave + 2(%rbp)
    lgdt table_at - leave(%rbp)
    ljmp *far - leave(%rbp)
.code32
narrow:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    mov $0xc0000080, %ecx           /* EFER: no long mode */
    rdmsr
    and $~0x100, %eax
    wrmsr
    xor %eax, %eax
    mov %eax, %cr4
    mov %esi, %ebx
    mov $0x2badb002, %eax
    jmp *%edi
.balign 8
table:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
table_at:
    .word 23
    .quad 0
far:
    .long 0
    .word 8
leave_end:
.section .note.GNU-stack, "", @progbits

/* Entry by PVH: 32-bit protected mode, start information at ebx. The payload is entered as multiboot
   does, with that memory map and the root pointer of ACPI. It lies behind the image, where a
   multiboot loader would put the map; the host fills in three addresses. */
HAS_MAP = 64
ENTRY = 24
MOST = 2048
.code32
.section .head, "ax"
start:
    .byte 0xbd                      /* mov $start, %ebp */
    .long 0
    .byte 0xbe                      /* mov $rsdp of the image's header, %esi */
    .long 0
    .byte 0xbf                      /* mov $entry of the image, %edi */
    .long 0
    cli
    cld
    cmpl $0, 36(%ebx)               /* above 4 GiB */
    jne 1f
    mov 32(%ebx), %eax
    mov %eax, (%esi)
1:  lea information - start(%ebp), %esi
    movl $0, (%esi)
    cmpl $0, 4(%ebx)                /* version 0 has no map */
    je 4f
    mov 48(%ebx), %ecx
    mov 40(%ebx), %edx
    cmp $MOST, %ecx
    jbe 2f
    mov $MOST, %ecx
2:  movl $HAS_MAP, (%esi)
    imul $ENTRY, %ecx, %eax
    mov %eax, 44(%esi)
    lea 64(%esi), %eax
    mov %eax, 48(%esi)
    jecxz 4f
3:  movl $20, (%eax)                /* bytes that follow: start, length and type, as here */
    .set part, 0
    .rept 5
    mov part(%edx), %ebx
    mov %ebx, part + 4(%eax)
    .set part, part + 4
    .endr
    add $ENTRY, %eax
    add $ENTRY, %edx
    loop 3b
4:  mov %esi, %ebx
    mov $0x2badb002, %eax
    jmp *%edi
.balign 16
information:
.section .note.GNU-stack, "", @progbits

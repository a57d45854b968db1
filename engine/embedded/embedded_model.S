// Puts the .tess file TESSERA_EMBEDDED_FILE into read-only memory, aligned as a mapped file would be.
    .section .rodata.tessera_embedded, "a", %progbits
    .balign 4096
    .globl tessera_embedded_begin
    .hidden tessera_embedded_begin
    .type tessera_embedded_begin, %object
tessera_embedded_begin:
    .incbin TESSERA_EMBEDDED_FILE
    .globl tessera_embedded_end
    .hidden tessera_embedded_end
    .type tessera_embedded_end, %object
tessera_embedded_end:
    .size tessera_embedded_begin, tessera_embedded_end - tessera_embedded_begin
    .section .note.GNU-stack, "", %progbits

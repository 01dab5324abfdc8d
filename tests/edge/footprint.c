/* The smallest firmware around an exported model, whose size is the model's flash. Run, it prints how much stack the
 * calls of `edge_work` took (the stack is painted first), and ends. */
#include <stdint.h>
#include <string.h>

#include "edge_work.h"

enum { PAINTED = 1500, PAINT = 0x5aa55aa5 };

extern uint32_t edge_stack_top, edge_data_load, edge_data, edge_data_end, edge_bss, edge_bss_end;
void edge_reset(void);

__attribute__((section(".vectors"), used)) static void *const VECTORS[2] = {&edge_stack_top, (void *)edge_reset};

static void semihost(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

static void say(uint32_t number)
{
    char text[12];
    char *at = text + 11;
    *at = 0;
    *--at = '\n';
    do *--at = (char)('0' + number % 10);
    while (number /= 10);
    semihost(4, at);
}

__attribute__((noinline)) static void measure(void)
{
    volatile uint32_t *top, *low, *paint;
    __asm volatile("mov %0, sp" : "=r"(top));
    top -= 16; /* the frame of this function */
    low = top - PAINTED;
    for (paint = low; paint < top; paint++) *paint = PAINT;
    edge_work();
    while (*low == PAINT) low++;
    say((uint32_t)((top - low) * 4));
}

void edge_reset(void)
{
    memcpy(&edge_data, &edge_data_load, (size_t)((char *)&edge_data_end - (char *)&edge_data));
    memset(&edge_bss, 0, (size_t)((char *)&edge_bss_end - (char *)&edge_bss));
#if defined(__ARM_FP)
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the coprocessors 10 and 11 are the FPU */
    __asm volatile("dsb\nisb");
#endif
    measure();
    semihost(0x18, (const void *)0x20026); /* the program ended */
    for (;;) {
    }
}

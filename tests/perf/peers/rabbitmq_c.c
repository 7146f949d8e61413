/* rabbitmq-c with publisher confirms: at most a thousand messages without an answer, one thread.
 *
 * rabbitmq_c publish|latency HOST PORT QUEUE COUNT SIZE RATE prints one line of JSON, as peers/task.py says.
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define WINDOW 1000
#define WARM_UP 200
#define LIMIT_S 120

static amqp_connection_state_t connection;
static char *answered;         /* by tag */
static double *due, *waited_s; /* by tag; by order of the answers */
static long first_open = 1, published, answers;

static void fail(const char *what) {
  fprintf(stderr, "rabbitmq-c: %s\n", what);
  exit(1);
}

static double seconds(clockid_t clock) {
  struct timespec at;
  clock_gettime(clock, &at);
  return at.tv_sec + at.tv_nsec * 1e-9;
}

static void settle(long tag) {
  if (tag < first_open || tag > published || answered[tag]) return;
  answered[tag] = 1;
  waited_s[answers++] = seconds(CLOCK_MONOTONIC) - due[tag];
}

static void take(const amqp_frame_t *frame) {
  if (frame->frame_type != AMQP_FRAME_METHOD) fail("content came where only confirms may come");
  if (frame->payload.method.id != AMQP_BASIC_ACK_METHOD) fail("a message was refused, or the channel closed");
  const amqp_basic_ack_t *ack = frame->payload.method.decoded;
  if (ack->multiple)
    for (long tag = first_open; tag <= (long)ack->delivery_tag; tag++) settle(tag);
  else
    settle((long)ack->delivery_tag);
  while (first_open <= published && answered[first_open]) first_open++;
}

/* Takes the answers that are there; waits up to `wait_s` seconds for the first. */
static int take_answers(double wait_s) {
  amqp_frame_t frame;
  int taken = 0;
  for (;;) {
    struct timeval patience = {(long)wait_s, (long)((wait_s - (long)wait_s) * 1e6)};
    int status = amqp_simple_wait_frame_noblock(connection, &frame, &patience);
    if (status == AMQP_STATUS_TIMEOUT) return taken;
    if (status != AMQP_STATUS_OK) fail(amqp_error_string2(status));
    take(&frame);
    taken++;
    wait_s = 0;
  }
}

static void publish(const char *queue, amqp_bytes_t body, double when) {
  char id[32];
  amqp_basic_properties_t properties;
  memset(&properties, 0, sizeof properties);
  properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG;
  properties.delivery_mode = 2;
  due[++published] = when;
  snprintf(id, sizeof id, "0123456789ab-%012lx", published);
  properties.message_id = amqp_cstring_bytes(id);
  int status = amqp_basic_publish(connection, 1, amqp_empty_bytes, amqp_cstring_bytes(queue), 1, 0, &properties, body);
  if (status != AMQP_STATUS_OK) fail(amqp_error_string2(status));
}

/* As fast as it goes; the window is filled again when half of it is free, which is faster than one by one. */
static void publish_all(const char *queue, amqp_bytes_t body, long last) {
  while (first_open <= last) {
    if (published - first_open + 1 <= WINDOW / 2)
      while (published < last && published - first_open + 1 < WINDOW)
        publish(queue, body, seconds(CLOCK_MONOTONIC));
    amqp_maybe_release_buffers(connection);
    if (!take_answers(LIMIT_S)) fail("no confirm came");
  }
}

static void publish_in_time(const char *queue, amqp_bytes_t body, long last, double rate) {
  double began = seconds(CLOCK_MONOTONIC);
  long before = published;
  while (first_open <= last) {
    double next = began + (published - before) / rate;
    while (published < last && next <= seconds(CLOCK_MONOTONIC)) {
      publish(queue, body, next);
      next = began + (published - before) / rate;
    }
    amqp_maybe_release_buffers(connection);
    double pause = published < last ? next - seconds(CLOCK_MONOTONIC) : LIMIT_S;
    take_answers(pause > 0 ? pause : 0);
  }
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

int main(int count_of_arguments, char **arguments) {
  if (count_of_arguments != 8) fail("publish|latency HOST PORT QUEUE COUNT SIZE RATE");
  const char *queue = arguments[4];
  long count = atol(arguments[5]), all = count + WARM_UP;
  size_t size = (size_t)atol(arguments[6]);
  connection = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  if (amqp_socket_open(socket, arguments[2], atoi(arguments[3]))) fail("no connection");
  amqp_rpc_reply_t login =
      amqp_login(connection, "/", 0, 131072, 60, AMQP_SASL_METHOD_PLAIN, "guest", "guest");
  if (login.reply_type != AMQP_RESPONSE_NORMAL) fail("not let in");
  amqp_channel_open(connection, 1);
  amqp_confirm_select(connection, 1);
  answered = calloc((size_t)all + 2, 1);
  due = calloc((size_t)all + 2, sizeof *due);
  waited_s = calloc((size_t)all + 2, sizeof *waited_s);
  amqp_bytes_t body = {size, memset(malloc(size + 1), 'x', size)};
  publish_all(queue, body, WARM_UP);
  answers = 0;
  double began = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
  if (strcmp(arguments[1], "latency") == 0)
    publish_in_time(queue, body, all, atof(arguments[7]));
  else
    publish_all(queue, body, all);
  double took = seconds(CLOCK_MONOTONIC) - began;
  cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  qsort(waited_s, (size_t)answers, sizeof *waited_s, by_size);
  printf("{\"rate\": %.1f, \"cpu_us\": %.3f, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n", count / took, cpu / count * 1e6,
         waited_s[answers / 2] * 1e3, waited_s[(long)(answers * 0.99)] * 1e3);
  return 0;
}

/* tools.h - thirty tools of a car, a home and a robot, as a Korean product
 * would have them, with a call of each: what constrained answers are tried on.
 */
#ifndef KSLLM_TEST_TOOLS_H
#define KSLLM_TEST_TOOLS_H

typedef struct tool_row {
    const char *name, *description;
    const char *parameters;     /* NULL: none */
    const char *arguments;      /* of a call that is right */
} tool_row;

/* An object's schema: its properties, and the names that must come. */
#define TOOL_OBJECT(properties, ...) \
    "{\"type\": \"object\", \"properties\": {" properties \
    "}, \"required\": [" __VA_ARGS__ "]}"

static const tool_row tool_rows[] = {
    /* ---- a car ---- */
    {"set_temperature", "좌석의 온도를 정한다", TOOL_OBJECT(
     "\"zone\": {\"type\": \"string\", \"enum\": [\"운전석\", \"조수석\", "
     "\"뒷좌석\", \"전체\"]}, \"celsius\": {\"type\": \"number\", "
     "\"minimum\": 16, \"maximum\": 30, \"description\": \"섭씨\"}",
     "\"zone\", \"celsius\""), "{\"zone\": \"운전석\", \"celsius\": 22.5}"},
    {"open_window", "창문을 연다", TOOL_OBJECT(
     "\"which\": {\"type\": \"string\", \"enum\": [\"앞 왼쪽\", \"앞 오른쪽\", "
     "\"뒤 왼쪽\", \"뒤 오른쪽\", \"선루프\"]}, \"percent\": {\"type\": "
     "\"integer\", \"minimum\": 0, \"maximum\": 100}", "\"which\""),
     "{\"which\": \"선루프\", \"percent\": 50}"},
    {"navigate", "길을 안내한다", TOOL_OBJECT(
     "\"destination\": {\"type\": \"string\", \"description\": \"목적지\"}, "
     "\"avoid\": {\"type\": \"array\", \"items\": {\"type\": \"string\", "
     "\"enum\": [\"유료 도로\", \"고속 도로\", \"비포장\"]}, \"maxItems\": 3}, "
     "\"via\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}}",
     "\"destination\""), "{\"destination\": \"서울역\", \"avoid\": "
     "[\"유료 도로\"], \"via\": [\"수원\", \"안양\"]}"},
    {"seat_heating", "열선을 켠다", TOOL_OBJECT(
     "\"seat\": {\"enum\": [\"운전석\", \"조수석\"]}, \"level\": {\"type\": "
     "\"integer\", \"enum\": [0, 1, 2, 3]}", "\"seat\", \"level\""),
     "{\"seat\": \"조수석\", \"level\": 2}"},
    {"play_media", "음악을 튼다", TOOL_OBJECT(
     "\"title\": {\"type\": \"string\"}, \"artist\": {\"type\": \"string\"}, "
     "\"source\": {\"type\": \"string\", \"enum\": [\"라디오\", \"블루투스\", "
     "\"USB\"]}, \"shuffle\": {\"type\": \"boolean\"}", "\"title\""),
     "{\"title\": \"봄날\", \"source\": \"블루투스\", \"shuffle\": false}"},
    {"set_wiper", "와이퍼", TOOL_OBJECT("\"speed\": {\"type\": \"string\", "
     "\"enum\": [\"끔\", \"간헐\", \"느리게\", \"빠르게\"]}", "\"speed\""),
     "{\"speed\": \"간헐\"}"},
    {"call_phone", "전화를 건다", TOOL_OBJECT(
     "\"number\": {\"type\": \"string\", \"pattern\": "
     "\"^01[016]-[0-9]{3,4}-[0-9]{4}$\"}, \"speaker\": {\"type\": "
     "\"boolean\"}", "\"number\""),
     "{\"number\": \"010-1234-5678\", \"speaker\": true}"},
    {"drive_mode", "주행 모드", TOOL_OBJECT("\"mode\": {\"type\": \"string\", "
     "\"enum\": [\"에코\", \"일반\", \"스포츠\"]}", "\"mode\""),
     "{\"mode\": \"에코\"}"},
    {"tire_pressure", "타이어 공기압을 알려준다", NULL, "{}"},
    {"charge_until", "충전을 예약한다", TOOL_OBJECT(
     "\"percent\": {\"type\": \"integer\", \"minimum\": 50, \"maximum\": 100}, "
     "\"until\": {\"type\": \"string\", \"format\": \"time\"}, \"limit\": "
     "{\"type\": [\"number\", \"null\"]}", "\"percent\""),
     "{\"percent\": 80, \"limit\": null}"},
    /* ---- a home ---- */
    {"light", "조명을 켜고 끈다", TOOL_OBJECT(
     "\"room\": {\"type\": \"string\", \"enum\": [\"거실\", \"안방\", \"부엌\", "
     "\"화장실\", \"현관\"]}, \"on\": {\"type\": \"boolean\"}, \"color\": "
     "{\"type\": \"string\", \"enum\": [\"흰색\", \"노란색\", \"주황색\"]}, "
     "\"brightness\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": "
     "100}", "\"room\", \"on\""),
     "{\"room\": \"거실\", \"on\": true, \"brightness\": 70}"},
    {"boiler", "보일러", TOOL_OBJECT("\"mode\": {\"type\": \"string\", "
     "\"enum\": [\"난방\", \"온수\", \"외출\"]}, \"target\": {\"type\": "
     "\"integer\", \"minimum\": 5, \"maximum\": 40}", "\"mode\""),
     "{\"mode\": \"외출\"}"},
    {"washing_machine", "세탁기를 돌린다", TOOL_OBJECT(
     "\"course\": {\"type\": \"string\", \"enum\": [\"표준\", \"울\", \"이불\", "
     "\"삶음\"]}, \"water\": {\"type\": \"number\", \"minimum\": 0, "
     "\"exclusiveMaximum\": 96}, \"rinses\": {\"type\": \"integer\", "
     "\"minimum\": 1, \"maximum\": 5}", "\"course\""),
     "{\"course\": \"이불\", \"water\": 40, \"rinses\": 3}"},
    {"remember", "메모를 남긴다", TOOL_OBJECT(
     "\"text\": {\"type\": \"string\"}, \"tags\": {\"type\": \"array\", "
     "\"items\": {\"type\": \"string\", \"maxLength\": 20}, \"maxItems\": 4}",
     "\"text\""), "{\"text\": \"우유 사기\", \"tags\": [\"장보기\"]}"},
    {"set_alarm", "알람을 맞춘다", TOOL_OBJECT(
     "\"at\": {\"type\": \"string\", \"pattern\": "
     "\"^([01][0-9]|2[0-3]):[0-5][0-9]$\"}, \"days\": {\"type\": \"array\", "
     "\"items\": {\"enum\": [\"월\", \"화\", \"수\", \"목\", \"금\", \"토\", "
     "\"일\"]}, \"maxItems\": 7}", "\"at\""),
     "{\"at\": \"07:30\", \"days\": [\"월\", \"수\", \"금\"]}"},
    {"curtain", "커튼", TOOL_OBJECT("\"open\": {\"type\": \"integer\", "
     "\"minimum\": 0, \"maximum\": 100, \"multipleOf\": 10}", "\"open\""),
     "{\"open\": 30}"},
    {"air_purifier", "공기 청정기", TOOL_OBJECT("\"fan\": {\"enum\": [1, 2, 3, "
     "\"자동\"]}, \"sleep\": {\"type\": \"boolean\"}", "\"fan\""),
     "{\"fan\": \"자동\", \"sleep\": true}"},
    {"door_lock", "문을 잠근다", TOOL_OBJECT("\"door\": {\"type\": \"string\", "
     "\"enum\": [\"현관\", \"뒷문\"]}, \"lock\": {\"const\": true}",
     "\"door\", \"lock\""), "{\"door\": \"현관\", \"lock\": true}"},
    {"recipe", "조리법을 찾는다", TOOL_OBJECT(
     "\"dish\": {\"type\": \"string\", \"minLength\": 2, \"maxLength\": 30}, "
     "\"servings\": {\"type\": \"integer\", \"minimum\": 1}, \"without\": "
     "{\"type\": \"array\", \"items\": {\"type\": \"string\"}}", "\"dish\""),
     "{\"dish\": \"김치찌개\", \"servings\": 2, \"without\": [\"돼지고기\"]}"},
    {"scene", "여러 기기를 한꺼번에", TOOL_OBJECT(
     "\"name\": {\"type\": \"string\"}, \"steps\": {\"type\": \"array\", "
     "\"minItems\": 1, \"maxItems\": 8, \"items\": {\"type\": \"object\", "
     "\"properties\": {\"device\": {\"type\": \"string\", \"enum\": [\"조명\", "
     "\"커튼\", \"보일러\", \"TV\"]}, \"power\": {\"type\": \"boolean\"}}, "
     "\"required\": [\"device\", \"power\"], \"additionalProperties\": "
     "false}}", "\"name\", \"steps\""), "{\"name\": \"영화\", \"steps\": "
     "[{\"device\": \"조명\", \"power\": false}, {\"device\": \"TV\", "
     "\"power\": true}]}"},
    /* ---- a robot ---- */
    {"move", "움직인다", TOOL_OBJECT(
     "\"direction\": {\"type\": \"string\", \"enum\": [\"앞\", \"뒤\", "
     "\"왼쪽\", \"오른쪽\"]}, \"meters\": {\"type\": \"number\", "
     "\"exclusiveMinimum\": 0, \"maximum\": 10}", "\"direction\", \"meters\""),
     "{\"direction\": \"앞\", \"meters\": 1.25}"},
    {"turn", "돈다", TOOL_OBJECT("\"degrees\": {\"type\": \"integer\", "
     "\"minimum\": -180, \"maximum\": 180}", "\"degrees\""),
     "{\"degrees\": -90}"},
    {"grip", "집는다", TOOL_OBJECT("\"hand\": {\"type\": \"string\", \"enum\": "
     "[\"왼손\", \"오른손\"]}, \"force\": {\"type\": \"number\", \"minimum\": "
     "0.5, \"maximum\": 20}, \"object\": {\"type\": \"string\"}",
     "\"hand\", \"object\""), "{\"hand\": \"오른손\", \"object\": \"컵\"}"},
    {"arm_pose", "팔을 움직인다", TOOL_OBJECT("\"joints\": {\"type\": "
     "\"array\", \"items\": {\"type\": \"number\", \"minimum\": -3.2, "
     "\"maximum\": 3.2}, \"minItems\": 6, \"maxItems\": 6}", "\"joints\""),
     "{\"joints\": [0, 0.5, -1.57, 0, 3, -0.25]}"},
    {"go_to", "그곳으로 간다", TOOL_OBJECT(
     "\"pose\": {\"type\": \"object\", \"properties\": {\"x\": {\"type\": "
     "\"number\"}, \"y\": {\"type\": \"number\"}, \"heading\": {\"type\": "
     "\"number\", \"minimum\": 0, \"maximum\": 360}}, \"required\": [\"x\", "
     "\"y\"], \"additionalProperties\": false}, \"speed\": {\"type\": "
     "\"string\", \"enum\": [\"천천히\", \"보통\", \"빨리\"]}", "\"pose\""),
     "{\"pose\": {\"x\": 3.5, \"y\": -2, \"heading\": 90}, \"speed\": "
     "\"천천히\"}"},
    {"say", "말한다", TOOL_OBJECT("\"text\": {\"type\": \"string\"}, "
     "\"volume\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 10}",
     "\"text\""), "{\"text\": \"안녕하세요, \\\"반갑습니다\\\"!\\n또 봐요\"}"},
    {"look_for", "찾는다", TOOL_OBJECT("\"what\": {\"type\": \"string\", "
     "\"description\": \"물건이나 사람\"}, \"where\": {\"type\": \"array\", "
     "\"items\": {\"type\": \"string\", \"enum\": [\"거실\", \"부엌\", "
     "\"마당\"]}, \"minItems\": 1, \"maxItems\": 3}", "\"what\""),
     "{\"what\": \"리모컨\", \"where\": [\"거실\"]}"},
    {"정지", "멈춘다", NULL, "{}"},
    {"배달", "물건을 나른다", TOOL_OBJECT(
     "\"물건\": {\"type\": \"string\"}, \"받는_사람\": {\"type\": \"string\", "
     "\"enum\": [\"엄마\", \"아빠\", \"할머니\"]}, \"급함\": {\"type\": "
     "\"boolean\"}", "\"물건\", \"받는_사람\""),
     "{\"물건\": \"신문\", \"받는_사람\": \"할머니\", \"급함\": true}"},
    {"battery_plan", "충전 계획", TOOL_OBJECT(
     "\"return_at\": {\"type\": \"integer\", \"minimum\": 5, \"maximum\": "
     "50}, \"quiet\": {\"type\": \"object\", \"properties\": {\"from\": "
     "{\"type\": \"string\", \"pattern\": \"^[0-2][0-9]:[0-5][0-9]$\"}, "
     "\"to\": {\"type\": \"string\", \"pattern\": \"^[0-2][0-9]:[0-5][0-9]$\""
     "}}, \"required\": [\"from\", \"to\"], \"additionalProperties\": false}",
     "\"return_at\""), "{\"return_at\": 20, \"quiet\": {\"from\": \"22:00\", "
     "\"to\": \"06:30\"}}"},
};

enum { N_TOOLS = sizeof tool_rows / sizeof *tool_rows };

#endif

// Texts, numbers and times as people read them. English is the key: t("Queue") is "Очередь" in Russian.
import { signal } from "@preact/signals";

const known = localStorage.getItem("crm-language");
export const lang = signal(known === "en" || known === "ru" ? known : navigator.language.startsWith("ru") ? "ru" : "en");
export function speak(language) {
  localStorage.setItem("crm-language", language);
  lang.value = language;
}

/** The text in the page's language; {0}, {1}... are the values. tests/page/test_texts.py compares what is said with RU. */
export const t = (text, ...values) =>
  ((lang.value === "ru" ? RU : WORDS)[text] ?? text).replace(/\{(\d)\}/g, (_, position) => values[position]);

const FORMATS = Object.fromEntries(["en", "ru"].map((name) => [name, { // made once: making one is slow
  number: new Intl.NumberFormat(name),
  percent: new Intl.NumberFormat(name, { style: "percent", maximumFractionDigits: 1 }),
  time: new Intl.DateTimeFormat(name === "en" ? "en-GB" : name, { hour: "2-digit", minute: "2-digit" }),
  date: new Intl.DateTimeFormat(name === "en" ? "en-GB" : name, { day: "numeric", month: "short" }),
  dateOfYear: new Intl.DateTimeFormat(name === "en" ? "en-GB" : name, { day: "numeric", month: "short", year: "numeric" }),
  weekday: new Intl.DateTimeFormat(name === "en" ? "en-GB" : name, { weekday: "short" }),
  day: new Intl.RelativeTimeFormat(name, { numeric: "auto" }),
}]));
export const number = (value) => FORMATS[lang.value].number.format(value);
export const percent = (value) => FORMATS[lang.value].percent.format(value);

let skew = 0; // milliseconds that the service's clock is ahead
export const now = () => Date.now() + skew;
const midnight = (days) => new Date(now()).setHours(24 * days, 0, 0, 0);
const day = signal(midnight(0)); // so that a "today" is drawn again when it is none any more
/** date: the header of an answer. */
export function setClock(date) {
  const time = Date.parse(date) + 500;
  if (Math.abs(time - now()) > 2000) skew = time - Date.now();
  day.value = midnight(0);
}
export function today() {
  const [since, until] = [0, 1].map((days) => new Date(midnight(days)).toISOString());
  return { since, until };
}

/** How many days from today on. */
const daysTo = (at) => Math.round((new Date(at).setHours(0, 0, 0, 0) - day.value) / 86400000);
/** Such as "today 14:05", "yesterday 9:30", "3 Nov, 12:00". */
export function moment(text) {
  const { time, date, dateOfYear, day: relative } = FORMATS[lang.value];
  const at = new Date(text), days = daysTo(at);
  if (Math.abs(days) <= 1) return `${relative.format(days, "day")} ${time.format(at)}`;
  return `${(at.getFullYear() === new Date(day.value).getFullYear() ? date : dateOfYear).format(at)}, ${time.format(at)}`;
}

/** What is to come soon: "18:00", "tomorrow 9:30", "Mon 09:00". */
export function soon(text) {
  const at = new Date(text), days = daysTo(at), clock = FORMATS[lang.value].time.format(at);
  return days === 0 ? clock : days > 1 && days < 7 ? `${FORMATS[lang.value].weekday.format(at)} ${clock}` : moment(text);
}
export const weekday = (number) => FORMATS[lang.value].weekday.format(new Date(2024, 0, 1 + number)); // 0: Monday

/** From begin to end by the clock of a zone: "26 Nov 2026", "26–28 Nov 2026", "28 Nov 2026, 10:00–14:00". */
export function period(begin, end, timeZone, isWholeDays) {
  const format = new Intl.DateTimeFormat(lang.value === "en" ? "en-GB" : lang.value, { dateStyle: "medium", ...(isWholeDays ? {} : { timeStyle: "short" }), timeZone });
  return format.formatRange(Date.parse(begin), Date.parse(end) - (isWholeDays ? 1000 : 0));
}

export function duration(seconds) {
  if (seconds < 60) return t("{0} s", Math.max(0, Math.floor(seconds)));
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return t("{0} min", minutes);
  return minutes < 2880 ? t("{0} h {1} min", Math.floor(minutes / 60), minutes % 60) : t("{0} days", Math.floor(minutes / 1440));
}

/** What the service says, in the page's language. */
export const translated = (message) =>
  lang.value === "ru" ? SAID.reduce((text, [pattern, russian]) => text.replace(pattern, russian), message) : message;
const SAID = [
  [/operator (\d+) is full: (\d+) of (\d+)/, "оператор $1: нет места, $2 из $3"], [/operator (\d+) is inactive/, "оператор $1: приём выключен"],
  [/no other operator of source \d+ can take contact (\d+) now/, "никто другой сейчас не может взять обращение $1"],
  [/source (\d+) already has the (?:name|bot_id) (.*)/, "источник $1 уже называется $2"], [/contact (\d+) is closed: .*/, "обращение $1 закрыто"],
  [/a key of the role (\w+) can't do this/, "ключ с ролью $1 этого не может"], [/a key of the role (\w+) is for programs, .*/, "ключ с ролью $1 – для программ"],
  [/(\d+) wrong keys in a minute: wait/, "$1 неверных ключей за минуту: подождите"], [/must not be blank/, "нужно заполнить"],
  [/lead_phone/g, "телефон"], [/lead_email/g, "почта"], [/lead_external_id/g, "id"],
  [/is not a phone number( \(.*?\))?/g, "не похоже на номер"], [/is not an e-mail address/g, "не похоже на адрес"], [/is (missing|blank)/g, "не указано"],
  [/is neither an https:\/\/ URL nor .*/, "не похоже ни на адрес https://, ни на адрес для apprise, например tgram://BOT_TOKEN/CHAT_ID"],
  [/must begin with https:\/\/.*/, "должен начинаться с https:// (http – только в сетях из CRM_WEBHOOK_ALLOW)"],
  [/(?:the|its) address is not a public one.*/, "этот адрес не из интернета и не из сетей CRM_WEBHOOK_ALLOW"],
  [/is not a URL|must be a URL .*/, "это не адрес https://"], [/messages to people need apprise: (.*)/, "для сообщений людям нужен apprise: $1"],
  [/no answer within (\d+) seconds/, "нет ответа за $1 с"], [/the connection failed: (.*)/, "нет соединения: $1"], [/answered (\d+)/, "ответ $1"],
  [/its name can't be looked up/, "имя не найдено"], [/it has no address/, "у имени нет адреса"], [/the service failed: (.*)/, "сбой сервиса: $1"],
  [/the service can't be reached, or refused it/, "сервис недоступен или отказал"], [/subscription \d+ is not held up .*/, "уже ничего не задерживает"],
  [/must end after its begin/, "конец должен быть позже начала"], [/must be a time zone such as (.*)/, "нужен часовой пояс, например $1"],
  [/lead (\d+) has (\d+) open contacts?,(?: such as)? contact (\d+): close them first/, "у лида $1 открыто обращений: $2 (например, $3), сначала закройте их"],
  [/lead (\d+) was merged into lead (\d+), which was forgotten since/, "лид $1 объединён в лид $2, а тот уже забыт"], [/lead (\d+) was merged into lead (\d+)/, "лид $1 уже объединён в лид $2"], [/lead (\d+) was forgotten/, "лид $1 забыт"], [/lead (\d+) not found/, "лида $1 нет"],
  [/lead (\d+) can't be merged into itself/, "лид $1 нельзя объединить с ним самим"],
  [/belongs to lead (\d+)/g, "принадлежит лиду $1"], [/the database is not available.*/, "база данных недоступна"],
];

export const RU = {
  "{0} s": "{0} с", "{0} min": "{0} мин", "{0} h {1} min": "{0} ч {1} мин", "{0} days": "{0} дн.", "{0} of {1}": "{0} из {1}", Operators: "Операторы", Sources: "Источники",
  Queue: "Очередь", Contacts: "Обращения", Leads: "Лиды", Views: "Разделы", Test: "Тест", "My desk": "Мои обращения", Language: "Язык", Load: "Нагрузка", Name: "Имя", Limit: "Лимит",
  "no answer": "нет ответа", "error {0}": "ошибка {0}", "No answer: it may be done or not.": "Нет ответа: возможно, сделано, а возможно, и нет.",
  "The service is away since {0} ({1}). Trying again every two seconds.": "Сервис перестал отвечать {0} ({1}). Повторяем каждые две секунды.", "The service is back.": "Сервис снова доступен.",
  Hide: "Скрыть", "Sign out": "Выйти", Sessions: "Сеансы", "Reading…": "Читаем…", "Source name": "Название", "weight {0}": "вес {0}", "These are the newest {0}.": "Это последние {0}.", "new meanwhile: {0}": "появилось новых: {0}",
  "Meanwhile {0} has it.": "Уже у другого: {0}.", "no answer of this service": "ответил не этот сервис", "This key is not known.": "Этот ключ неизвестен.",
  "This service asks for a key": "Нужен ключ", "It is given once. This browser then stays signed in until 12 hours after the last use.": "Он нужен один раз: потом этот браузер помнит вас 12 часов после последнего действия.",
  "The session has ended, or its key was revoked.": "Сеанс закончился или его ключ отозван.", "Where you are signed in": "Где вы вошли", "this one": "этот",
  "since {0}, last used {1}": "начат {0}, последний раз {1}", End: "Завершить", "Session ended": "Сеанс завершён", "unknown browser": "неизвестный браузер",
  Key: "Ключ", Enter: "Войти", "Contacts today": "Обращений сегодня",
  "{0} in all": "всего {0}", Waiting: "Ждут", "the longest {0}": "самое долгое ожидание {0}", "Of today's without operator": "Из сегодняшних без оператора",
  "Contacts per minute in the last hour: at most {0}, {1} in this minute": "Обращений в минуту за последний час: максимум {0}, сейчас {1}", Active: "Приём",
  "Switched on": "Приём включён", "Switched off": "Приём выключен", off: "приём выключен", inactive: "приём выключен", "Operator added": "Оператор добавлен",
  "Add operator": "Добавить оператора", "No operators yet: add one here.": "Операторов пока нет: добавьте здесь.", "today: {0}": "сегодня: {0}", Set: "Сохранить",
  "Limit changed": "Лимит изменён", Release: "Снять всё",
  "Release {0}? All open contacts go to others or back to the queue.": "Снять всё с оператора {0}? Открытые обращения уйдут другим или в очередь.",
  "Released: {0}. To others: {1}, back to the queue: {2}.": "Снято: {0}. Другим: {1}, в очередь: {2}.", "Source added": "Источник добавлен", "Add source": "Добавить источник",
  "Bot id": "Id бота", "No sources yet: add one here.": "Источников пока нет: добавьте здесь.", "Shares of contacts": "Доли обращений", today: "за сегодня", "of all time": "за всё время",
  "Thin bar: by weight. Thick bar: what came out.": "Тонкая полоса: по весам. Толстая: фактически.", "contacts: {0}": "обращений: {0}", "waiting: {0}": "ждут: {0}",
  "full, {0} of {1}": "нет места, {0} из {1}", "Nobody serves this source: its contacts wait.": "Источник никто не обслуживает: обращения ждут.", "Edit weights": "Изменить веса",
  "Save weights": "Сохранить веса", "Weights saved": "Веса сохранены", Cancel: "Отмена", Add: "Добавить", "Weight of {0}": "Вес: {0}", Remove: "Убрать", "Remove {0}": "Убрать: {0}",
  "choose…": "выберите…", "Share by weight of {0}": "Доля по весу: {0}", "Actual share of {0}": "Фактическая доля: {0}",
  "limits, absence or changed weights": "лимиты, отсутствие или новые веса", "▼ less than by weight: {0}": "▼ меньше, чем по весу: {0}",
  "▲ more than by weight: others were full or off, or weights changed": "▲ больше, чем по весу: у других не было места или смены, или веса менялись",
  "Who gets the next one?": "Кто получит следующее?", "Who gets the next one of {0}?": "Кто получит следующее из {0}?",
  "Nobody can: the next one waits.": "Никто не может: следующее будет ждать.", "with {0}, load {1} of {2}": "с вероятностью {0}, нагрузка {1} из {2}", "not: {0}": "нет: {0}",
  zero_weight: "вес 0", "To anyone": "Любому", "To anyone else": "Любому другому", To: "Кому", Assign: "Назначить", "{0} has it now.": "Теперь у оператора {0}.",
  "{0}. Assign all the same?": "{0}. Всё равно назначить?", "Nobody waits.": "Никто не ждёт.", Status: "Статус", Source: "Источник", Operator: "Оператор", all: "все",
  "No contacts.": "Обращений нет.", "Tell me of new ones:": "О новых:", Notification: "Уведомление", Sound: "Звук",
  "The browser does not let this page show notifications.": "Браузер не разрешает этой странице уведомления.", "New contact: {0}": "Новое обращение: {0}",
  next: "следующее", previous: "предыдущее", start: "начать", close: "закрыть", "Show more": "Показать ещё", pending: "ждёт", new: "новое", in_progress: "в работе", closed: "закрыто", nobody: "никто", Start: "Начать",
  Close: "Закрыть", Started: "Начато", Closed: "Закрыто", "priority {0}": "приоритет {0}", "operator {0}": "оператор {0}", "lead {0}": "лид {0}",
  "Name, phone, e-mail or id": "Имя, телефон, почта или id", Search: "Найти", "No lead found.": "Лид не найден.", "Messenger id": "Id в мессенджере", Phone: "Телефон", "E-mail": "Почта",
  Message: "Сообщение", "Priority (0-9)": "Приоритет (0-9)", Send: "Отправить", "Contact {0}": "Обращение {0}", "Contact {0}: {1} got it.": "Обращение {0} – у оператора {1}.", Lead: "Лид",
  History: "История", "Contact {0}: nobody has room, it waits.": "Обращение {0} ждёт: ни у кого нет места.", "Close this window": "Закрыть окно", distributed: "Распределено",
  queued: "Никто не мог взять, ждёт", from_queue: "Из очереди", manual: "Назначено вручную", forced: "Назначено сверх лимита или при выключенном приёме", released: "Снято с оператора",
  "Released, nobody could take it": "Снято с оператора, никто не мог взять", "{0} got it, at {1} of {2}": "{0}, нагрузка {1} из {2}",
  "{0} was drawn with {1}, at {2} of {3}": "{0} – жребием ({1}), нагрузка {2} из {3}", "{0} was not drawn ({1})": "{0} – жребий не выпал ({1})",
  "{0} was full, {1} of {2}": "{0} – не было места, {1} из {2}", "{0} was off": "{0} – приём выключен", "{0} was off shift": "{0} – вне смены", "{0} has weight 0": "{0} – вес 0",
  "{0} had it before": "{0} – раньше обращение было здесь", "nobody serves the source": "источник никто не обслуживает",
  Pictures: "Графики", Period: "Период", Hour: "Час", Today: "Сегодня", "7 days": "7 дней", "30 days": "30 дней", "From … to …": "С … по …",
  "First day": "Первый день", "Last day": "Последний день", "per minute": "в минуту", "per hour": "в час", "per day": "в день", "{0} h": "{0} ч",
  "In the whole period": "За весь период", "{0} others": "Остальные ({0})", "Of these had to wait": "Из них ждали", When: "Когда", "{0}: when": "{0}: когда",
  "As a table": "Таблицей", "The picture could not be loaded.": "График не загрузился.", "No contacts in this period.": "За этот период обращений нет.",
  "Time to assignment": "Время до назначения", "half of the contacts, and 95 of 100, had an operator within it": "не дольше ждали оператора половина и 95 из 100 обращений",
  "95 of 100": "95 из 100", half: "половина", "All contacts had an operator at once.": "Все обращения получили оператора сразу.",
  "Nothing was assigned in this period.": "За этот период ничего не назначено.", "open contacts that have an operator": "открытые обращения у операторов",
  "Capacity, as it is now": "Сейчас мест", Shares: "Доли", "of the contacts of a source": "в обращениях источника", "by weight, as it is now": "по нынешнему весу",
  Subscriptions: "Подписки", "Nobody is told yet: add a receiver here.": "Пока никто не получает уведомлений: добавьте получателя здесь.",
  "switched off": "выключено", paused: "на паузе", fails: "не доходит", "up to date": "всё доставлено",
  "The receiver says that it is gone for good (410).": "Получатель сообщил, что его больше нет (410).", "It failed too often: {0} tries.": "Слишком много неудач: {0}.",
  "Failed tries: {0}, the next {1}.": "Неудачных попыток: {0}, следующая {1}.", "Failed tries: {0}.": "Неудачных попыток: {0}.",
  "Behind since {0}, by event {1}.": "Отстаёт с {0}, задерживает событие {1}.", "all that happens": "обо всём", "what somebody should act on": "о том, что требует действий",
  "with the lead and the message": "с лидом и сообщением", "A test is being sent to {0}…": "Отправляем проверку: {0}…", "The test arrived at {0}.": "Проверка дошла: {0}.",
  "The test did not arrive at {0}: {1}": "Проверка не дошла ({0}): {1}", "Paused: it keeps its place.": "Пауза: место в очереди событий сохранено.",
  "Goes on from where it stood.": "Продолжаем с того же места.", "Being tried again.": "Пробуем ещё раз.", "Try now": "Попробовать сейчас", Pause: "Пауза", Resume: "Продолжить",
  "Skip event {0}? {1} is never told of it.": "Пропустить событие {0}? {1} о нём не узнает.", Skip: "Пропустить", "Skipped: the later ones follow.": "Пропущено, отправляем следующие.",
  "New secret": "Новый секрет", "For 24 hours the old secret signs too.": "Ещё 24 часа подписываем и старым секретом.", Delete: "Удалить", Deleted: "Удалено",
  "Delete {0}? What it was not told yet, it never is.": "Удалить {0}? Чего получатель ещё не узнал, он уже не узнает.", "Send a test": "Проверить", Log: "Журнал", Copy: "Скопировать", Copied: "Скопировано",
  "Secret of {0}, to check signatures with. It is shown only now.": "Секрет для проверки подписей: {0}. Он показывается только сейчас.", "I have kept it": "Сохранено, скрыть",
  "Add a receiver": "Добавить получателя", "Who is told": "Кому", "a program, by webhook": "программе, вебхуком", "people, by Telegram, e-mail and others": "людям: Telegram, почта и другое",
  "Receiver added": "Получатель добавлен", Address: "Адрес", "How addresses are written": "Как пишутся адреса", "Each event is posted there as JSON, signed with a secret that is shown once.": "Каждое событие отправляется туда в JSON, с подписью; её секрет показывается один раз.",
  "Of what (none chosen: what somebody should act on)": "О чём (ничего не выбрано: о том, что требует действий)", "Of what (none chosen: all that happens)": "О чём (ничего не выбрано: обо всём)",
  "with the lead's name and phone, and the message": "с именем и телефоном лида и его сообщением", "These then leave the service: whoever carries the messages can read them.": "Тогда они уходят из сервиса: их сможет прочитать тот, кто доставляет сообщения.",
  "Add receiver": "Добавить", "Sent to {0}": "Отправлено: {0}", "Nothing was sent yet.": "Пока ничего не отправлялось.", "a test": "проверка", "that another was switched off": "о выключении другой подписки",
  "{0} events up to {1}": "событий: {0}, до {1}", "event {0}": "событие {0}", "{0}, try {1}": "{0}, попытка {1}",
  waiting: "отправляется", delivered: "доставлено", failed: "не доставлено", passed_over: "пропущено после отказов", skipped: "пропущено",
  "contact.assigned": "назначено", "contact.queued": "никто не может взять", "contact.started": "начато", "contact.closed": "закрыто", "contact.overdue": "ждёт слишком долго", "contact.unaccepted": "никто не принял",
  "Waits for too long": "Ждёт слишком долго", "Nobody accepted it, it stays": "Никто не принял, остаётся", sticky: "Как в прошлый раз", silent: "Передано дальше: не начато вовремя",
  off_shift: "вне смены", "on until {0}": "на смене до {0}", "off shift until {0}": "вне смены до {0}", Shifts: "Смены", "Shifts of {0}": "Смены: {0}", "The days and hours below are those of {0}.": "Дни и часы ниже – по времени {0}.", Week: "Неделя", "Past: {0}": "Прошедшие: {0}",
  "Absences and extra shifts": "Отсутствия и дополнительные смены", "Shifts saved": "Смены сохранены", "No hours: always on shift.": "Часов нет: всегда на смене.",
  "Tuesday to Friday as Monday": "Вторник – пятница как понедельник", "Time zone": "Часовой пояс", "that of the service": "как у сервиса", "Save week": "Сохранить неделю", "Add hours": "Добавить часы",
  begins: "с", ends: "до", "extra shift": "дополнительная смена", absent: "отсутствует", "Absent today": "Сегодня отсутствует", "Mark absent": "Отметить",
  "My week": "Моя неделя", "Number of the lead": "Номер лида", "Works also on": "Работает также", "Add shift": "Добавить смену", Topic: "Тема", Topics: "Темы", "any other": "любая другая", "a new one…": "новая…", "New topic": "Новая тема", "Add topic": "Добавить тему",
  "Without weights of its own, a topic is drawn like any other contact.": "Без своих весов тема распределяется как все остальные обращения.", "no weights: mistyped?": "нет весов: опечатка?",
  "as last time: {0}": "как в прошлый раз: {0}", "by topic: {0}": "по теме: {0}", "drawn by these weights: {0}": "по этим весам: {0}", Settings: "Настройки", "Settings of {0}": "Настройки: {0}",
  "Settings saved": "Настройки сохранены", "Save settings": "Сохранить", Description: "Описание", "A lead that comes again goes first to who had it last": "Повторное обращение лида – сначала тому, у кого он был",
  "Goes to another if not started within (empty: never)": "Передать другому, если не начато за (пусто: никогда)", minutes: "минут", seconds: "секунд",
  "Who does not start in time is switched off": "Кто не начал вовремя, тому приём выключается", "By the shifts of {0}; loads and switches are as of now.": "Смены – на {0}; нагрузка и приём – как сейчас.",
  "to be accepted until {0}": "принять до {0}", "Contact {0} was passed on meanwhile: {1} has it.": "Обращение {0} уже передано: теперь оно у оператора {1}.", "Contact {0} was passed on meanwhile.": "Обращение {0} уже передано.",
  "by weight": "по весу", "came out": "вышло", "what chance allows": "в пределах случайности", "chance allows {0} to {1}": "случайность допускает от {0} до {1}",
  Duplicates: "Дубли", "No two leads look like one person.": "Нет лидов, похожих на одного человека.", "Merge into this one": "Объединить в этот лид", "Two people": "Разные люди",
  "A contact came with an identifier of each. Nothing is merged by itself: decide who is one person.": "Обращение пришло с данными обоих. Само ничего не объединяется: решите, один ли это человек.",
  "came with contact {0}": "из обращения {0}", "Lead {0}, first seen {1}": "Лид {0}, появился {1}", "Lead {0} is part of lead {1} now.": "Лид {0} теперь часть лида {1}.",
  "Lead {0} is a lead of its own again.": "Лид {0} снова сам по себе.", "Leads {0} and {1} are two people.": "Лиды {0} и {1} – разные люди.", Undo: "Вернуть",
  "Lead {0} is no part of lead {1} any more.": "Лид {0} больше не часть лида {1}.", "What was done with its data": "Что делали с его данными", "by: {0}": "кто: {0}", "key {0}": "ключ {0}",
  "Lead {0} was merged into lead {1}, with contacts: {2}.": "Лид {0} объединён в лид {1}, обращений: {2}.", "the key of the settings": "ключ из настроек",
  "Lead {0} was taken out of lead {1} again, with contacts: {2}.": "Лид {0} снова отделён от лида {1}, обращений: {2}.", "somebody without a key": "неизвестно, без ключа",
  "Lead {0} was forgotten, its contacts stay: {1}.": "Лид {0} забыт, обращений осталось: {1}.", "This lead was forgotten: its name, identifiers and messages were deleted.": "Этот лид забыт: имя, данные и сообщения удалены.",
  "Merge or forget": "Объединить или забыть", Merge: "Объединить", "Its contacts and identifiers go over to the other lead. It can be undone.": "Его обращения и данные перейдут другому лиду. Это можно вернуть.",
  "Number of the lead that stays": "Номер лида, который останется", "Merge lead {0} into lead {1} ({2})?": "Объединить лид {0} в лид {1} ({2})?", Forget: "Забыть", Forgotten: "Забыто",
  "Its name, identifiers, messages and notes are deleted for good, and nobody can undo it. That there were contacts stays, so no count changes.": "Имя, данные, сообщения и заметки удаляются навсегда, вернуть их не сможет никто. Сами обращения остаются, и статистика не меняется.",
  "Type {0}, the number of this lead, to confirm": "Для подтверждения введите номер этого лида: {0}", "Forget this lead": "Забыть этот лид", "Export this lead (JSON)": "Выгрузить этот лид (JSON)",
  Export: "Выгрузка", "All contacts with the filters above, oldest first; without days those of all time.": "Все обращения по выбранным выше фильтрам, сначала старые; без дней – за всё время.",
  "CSV, for spreadsheets": "CSV, для таблиц", "JSON lines, for programs": "JSON lines, для программ", Try: "Примерить", "How many contacts come": "Сколько придёт обращений",
  "If {0} contacts came at once now, and none were closed meanwhile. Nothing is saved.": "Если бы сейчас сразу пришло обращений: {0}, и ни одно пока не закрыли. Ничего не сохранено.", "would get": "получит",
  "then full, {0} of {1}": "потом нет места, {0} из {1}", "{0} would wait: nobody has room for them.": "Ждать будут {0}: для них ни у кого нет места.", "Nobody would have to wait.": "Ждать никому не придётся.",
};
export const WORDS = { // of the API, in English
  pending: "pending", new: "new", in_progress: "in progress", closed: "closed", inactive: "off", off_shift: "off shift", zero_weight: "weight 0",
  distributed: "Distributed", queued: "Nobody could take it, it waits", from_queue: "From the queue", manual: "Assigned by hand",
  forced: "Assigned past the limit or absence", released: "Released", sticky: "As last time", silent: "Passed on, for it was not started in time",
  "contact.assigned": "assigned", "contact.queued": "nobody can take it", "contact.started": "started", "contact.closed": "closed", "contact.overdue": "waits for too long",
  "contact.unaccepted": "not accepted", waiting: "being sent", delivered: "delivered", failed: "failed", passed_over: "passed over after refusals", skipped: "skipped",
};
